"""``docs/performance.md`` is made from figures and from one section that people write."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.bars import bars
from bench.figures import Figure, Findings, Gate
from bench.page import FIGURES, PAGE, page, read_runs

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
        assert (FIGURES / f"{name}.svg").read_text(encoding="utf-8") == bars(plain["figures"])


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
