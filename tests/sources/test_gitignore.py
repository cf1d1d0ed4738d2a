"""Ignore rules, judged beside git itself over generated rules and trees."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestrator.errors import InvalidInput
from orchestrator.sources.explain import explain
from orchestrator.sources.git_rules import outer_files, users_file
from orchestrator.sources.gitignore import RuleList
from orchestrator.sources.ignores import Ignores, includes_of
from orchestrator.sources.tree import look
from tests.thorough import examples

PARTS = (
    *("a", "b", "ab", "*", "**", "?", "a*", "*b", "[ab]", "[!a]", "[^b]", "[a-c]", "[[:alpha:]]", "[[:digit:]a]"),
    *("[]a]", "\\a", "\\*", "[a\\]b]", "[b", "a[", "[[:x:]]", "a**", "**b", "***", "1", "a ", "a\\ ", "é", "[é]", "#"),
    *("!", "\\#", "\\!", ".", "*.*", "[[:space:]]", "[a-", "[-a]", "[b-]", "*a*b*", "a*?b", "*[!b]*", "\\", "[/]"),
    *("[[:upper:][:digit:]]", "[\\a-b]", "[b-\\c]", "\t", "\r", "\f", "\x85"),
)
NAMES = (
    "a",
    "b",
    "ab",
    "abb",
    "aab",
    "c",
    "1",
    "ba",
    "a b",
    "a ",
    "]",
    "*",
    "é",
    "#a",
    "!a",
    "a.b",
    "\\",
    "-",
    "\t",
    "[b",
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def drawn_rules(chance: random.Random, count: int, parts: Iterable[str] = PARTS) -> bytes:
    def part() -> str:
        return "".join(chance.choice(list(parts)) for _ in range(chance.randint(1, 2)))

    lines = [
        chance.choice(["!", "", "", ""])
        + chance.choice(["/", "", ""])
        + "/".join(part() for _ in range(chance.randint(1, 3)))
        + chance.choice(["/", "", "", "", " ", "  "])
        for _ in range(count)
    ]
    return os.fsencode("\n".join(lines) + chance.choice(["", "\n", "\r\n"]))


def ignored_by_git(repository: Path, paths: Iterable[str]) -> set[str]:
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    words = ["git", "-C", str(repository), "check-ignore", "--no-index", "-z", "--stdin"]
    told = subprocess.run(words, input=asked, capture_output=True, check=False)
    assert told.returncode in (0, 1), told.stderr
    return {os.fsdecode(path) for path in told.stdout.split(b"\0") if path}


@pytest.mark.parametrize("seed", range(examples(3)))
def test_rules_decide_as_git(repository: Path, seed: int) -> None:
    chance = random.Random(seed)
    judged = 0
    for _ in range(40):
        text = drawn_rules(chance, chance.randint(1, 4))
        (repository / ".gitignore").write_bytes(text)
        paths = {"/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 4))) for _ in range(60)}
        ignores = Ignores(frozenset(), rules={"": RuleList(text, ".gitignore")})
        ours = {path for path in paths if ignores.ignored(path)}
        assert ours == ignored_by_git(repository, paths), text
        judged += len(ours)
    assert judged > 100, "hardly anything was ignored: such rules try nothing"


TAME = ("a", "b", "*", "**", "a*", "*.c", "?", "[ab]", "*/", "d")


def drawn_tree(chance: random.Random, top: Path) -> None:
    """Make folders, files and rules files; not one name that is always ignored."""
    for _ in range(60):
        path = top.joinpath(*(chance.choice(["a", "b", "ab", "d", "x.c"]) for _ in range(chance.randint(1, 4))))
        if not path.is_dir() and all(not above.is_file() for above in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    folders = [top, *(path for path in top.rglob("*") if path.is_dir() and ".git" not in path.parts)]
    for folder in chance.sample(folders, min(3, len(folders))):
        (folder / ".gitignore").write_bytes(drawn_rules(chance, chance.randint(1, 4), TAME))
    (top / ".git/info").mkdir(exist_ok=True)
    (top / ".git/info/exclude").write_bytes(drawn_rules(chance, 2, TAME))


@pytest.mark.parametrize("seed", range(examples(12)))
def test_a_look_below_a_repositorys_top_sees_what_git_does_not_ignore(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "a").mkdir()
    drawn_tree(chance, tmp_path)
    for watched in [path for path in (tmp_path, tmp_path / "a", tmp_path / "a/b") if path.is_dir()]:
        if watched != tmp_path and ignored_by_git(tmp_path, [str(watched.relative_to(tmp_path))]):
            continue  # it is named, so it is watched
        all_files = {
            str(path.relative_to(watched))
            for path in watched.rglob("*")
            if path.is_file() and ".git" not in path.parts[len(tmp_path.parts) :]
        }
        beside_git = ignored_by_git(watched, all_files)
        outer = outer_files(str(watched), users_file(str(watched))).read()
        seen = look(str(watched), Ignores(frozenset(), outer)).files
        assert set(seen) == all_files - beside_git


def test_a_folder_that_git_ignores_is_watched_when_it_is_named(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("dist/\n*.js\n")
    (tmp_path / "dist").mkdir()
    assert outer_files(str(tmp_path / "dist"), None).read() == ()
    assert explain(tmp_path / "dist", "a.js").watched


def test_the_excludes_of_a_worktree_are_those_of_its_repository(tmp_path: Path) -> None:
    words = ["git", "-C", str(tmp_path / "main"), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", tmp_path / "main"], check=True)
    subprocess.run([*words, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*words, "worktree", "add", "-q", tmp_path / "other"], check=True)
    (tmp_path / "main/.git/info").mkdir(exist_ok=True)
    (tmp_path / "main/.git/info/exclude").write_text("*.log\n")

    found = explain(tmp_path / "other", "a.log")
    assert not found.watched
    assert found.rule is not None
    assert found.rule.source.endswith("info/exclude")


def test_many_stars_take_no_long_time() -> None:
    rules = RuleList(b"*a" * 40 + b"b\n" + b"**/" + b"*a*a" * 20 + b"b", "x")
    assert rules.last_match(b"", b"a" * 255, directory=False) is None


def test_includes_bring_files_back_and_folders_on_their_way_only(tmp_path: Path) -> None:
    for path in (".env", "out/gen/api.json", "out/gen/b.txt", "out/c.txt", "node_modules/p/.env", "a.py", "sub/.env"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / ".gitignore").write_text(".env\nout/\n")
    seen = look(str(tmp_path), Ignores(frozenset(), includes=includes_of([".env", "out/gen/*.json"])))
    assert set(seen.files) == {".gitignore", ".env", "sub/.env", "out/gen/api.json", "a.py"}
    assert seen.hidden == {"out", "out/gen"}


@pytest.mark.parametrize("pattern", ["", "!a", "# a", "a\nb", "[a", "a\\"])
def test_an_include_that_cannot_match_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="--include"):
        includes_of([pattern])


def test_what_decides_is_explained(tmp_path: Path) -> None:
    (tmp_path / "dist/deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / ".gitignore").write_text("# built\n/dist/\n*.log\n!keep.log\n.env\n")
    (tmp_path / "away").symlink_to("/usr")

    def told(path: str, *include: str) -> str:
        return explain(tmp_path, path, include=include).sentence()

    rules = tmp_path / ".gitignore"
    assert told("dist/deep/a.js") == f"dist/deep/a.js: ignored: {rules}:2: /dist/ (matches dist/)"
    assert told("dist/") == f"dist: ignored: {rules}:2: /dist/"
    assert told("keep.log") == f"keep.log: watched: {rules}:4: !keep.log"
    assert told("a.py") == "a.py: watched: no rule names it"
    assert told(".env") == f".env: ignored: {rules}:5: .env"
    assert told(".env", ".env") == ".env: watched: --include: .env"
    assert told("a.py~") == "a.py~: ignored: built in: *~"
    assert "leads out" in told("away")
    with pytest.raises(InvalidInput, match="not below"):
        told("../x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is somebody else's")
def test_a_repository_that_somebody_else_has_put_above_hides_nothing(tmp_path: Path) -> None:
    """As git refuses it (safe.directory): in /tmp, say, anybody could hide another's writes."""
    watched = tmp_path / "watched"
    watched.mkdir()
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("*.py\n")
    (tmp_path / ".git/info/exclude").write_text("*.js\n")
    hidden = [explain(watched, name).watched for name in ("a.py", "a.js")]
    os.chown(tmp_path / ".git", 65534, 65534)
    asked = subprocess.run(["git", "-C", watched, "check-ignore", "a.py"], check=False, capture_output=True)
    assert b"dubious ownership" in asked.stderr
    shown = [explain(watched, name).watched for name in ("a.py", "a.js")]
    assert (hidden, shown) == ([False, False], [True, True])
    os.chown(watched, 65534, 65534)  # it is of who owns the folder: a bind mount of a container, say
    assert not explain(watched, "a.py").watched
