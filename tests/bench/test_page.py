"""``docs/performance.md`` is made from figures and from one section that people write."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.bars import bars
from bench.curves import curves
from bench.figures import Figure, Findings, Gate, Line
from bench.page import FIGURES, PAGE, page, plots, read_runs

FIGURE = Figure(
    part="http",
    what="durable 202s <64 connections>",
    store="SQLite",
    ours=[50.0, 60.0],
    unit="/s",
    against="bare app",
    other=[100.0, 100.0],
    least=0.5,
    aim=0.9,
)


def run(*figures: Figure, **more: object) -> dict[str, object]:
    found = Findings(figures=list(figures), gates=[Gate(part="http", what="x", store="SQLite", holds=True, found="y")])
    head = {"parts": ["http"], "date": "2026-11-29", "commit": "abc", "machine": "2 cores", "python": "3.11"}
    return {**head, "against": None, "quick": False, **found.plain(), **more}


def test_the_page_is_what_its_figures_say() -> None:
    runs = read_runs(FIGURES)
    assert runs, "there are figures"
    assert PAGE.read_text(encoding="utf-8") == page(runs)
    for name, plain in runs.items():
        for file, drawn in plots(name, plain).items():
            assert (FIGURES / file).read_text(encoding="utf-8") == drawn


def test_a_run_says_how_to_repeat_it_and_what_it_found() -> None:
    text = page({"http": run(FIGURE, against="c157e99")})
    assert "`./dev bench http --against c157e99`, commit abc, 2026-11-29, on 2 cores" in text
    assert "0.55" in text
    assert "met" in text
    assert "performance/http.svg" in text


def test_a_plot_has_a_bar_for_each_figure_of_which_something_is_asked() -> None:
    plain = run(FIGURE, Figure(part="http", what="b", store="s", ours=[1.0], unit="", against="c"))["figures"]
    assert isinstance(plain, list)
    drawn = ElementTree.fromstring(bars(plain))  # noqa: S314 (our own)
    namespace = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{namespace}rect")) == 2  # the ground and one bar
    assert "durable 202s <64 connections>, SQLite" in [item.text for item in drawn.findall(f"{namespace}text")]


def test_what_grows_is_drawn_a_panel_each_and_shown_on_the_page() -> None:
    lines = [
        Line(part="scale", plot=plot, name=store, x="workspaces", y="ms", points=[(100, 1.0), (100_000, 4.0)])
        for plot in ("a <look>", "a page")
        for store in ("SQLite", "PostgreSQL")
    ]
    points = [line.plain() for line in lines]
    plain = run(FIGURE) | {"lines": points}
    drawn = ElementTree.fromstring(curves(points))  # noqa: S314 (our own)
    namespace = "{http://www.w3.org/2000/svg}"
    ends = [item.attrib["points"].split() for item in drawn.findall(f"{namespace}polyline")]
    assert [line[0].split(",")[0] for line in ends] == ["70.0"] * 4, "all begin at the left"
    assert float(ends[0][0].split(",")[1]) > float(ends[0][1].split(",")[1]), "four times as much is further up"
    titles = [item.text for item in drawn.findall(f"{namespace}text") if "font-weight" in item.attrib]
    assert titles == ["a <look>", "a page"]
    assert "performance/scale_grows.svg" in page({"scale": plain})
