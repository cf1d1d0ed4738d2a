"""Path rules: patterns refused with a reason, matched as git does, the first list that matches wins, in linear time."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from orchestrator.domain.path_patterns import MAX_PATTERN_CHARACTERS, MAX_PATTERNS, check_patterns
from orchestrator.domain.path_rules import PathRules
from orchestrator.errors import InvalidInput

SURROGATES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF, categories=["Cs"])
ANY_TEXT = st.text(st.one_of(st.characters(), SURROGATES, st.sampled_from("%/\x00aé")))
SEGMENT = st.sampled_from(["a", "b", "ab", "*", "**", "?b", "a*", "[ab]", "[!a]b", "a.py", "*.py"])
PATTERN = st.builds(
    lambda negated, rooted, segments, folder: negated + rooted + "/".join(segments) + folder,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(SEGMENT, min_size=1, max_size=4),
    st.sampled_from(["", "", "/"]),
)
PATH = st.lists(st.sampled_from(["a", "b", "ab", "bb", "a.py", "c", "a\nb"]), min_size=1, max_size=5).map("/".join)


def matches(patterns: tuple[str, ...], path: str) -> bool:
    return PathRules([patterns]).first(path) == 0


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (("docs/**", "*.md"), "docs/a/b.txt", True),
        (("docs/**", "*.md"), "src/README.md", True),
        (("docs/**", "*.md"), "src/a.py", False),
        (("*.md", "!README.md"), "src/README.md", False),
        (("!README.md", "*.md"), "README.md", True),
        (("/build",), "build/x", True),
        (("/build",), "src/build/x", False),
        (("*.py",), "/srv/app/x.py", True),
        (("srv/app/",), "///srv/app/x.py", True),
        (("logs/",), "logs", False),
        (("a?c",), "a\udce9c", True),
        (("**",), "a\x00\nb", True),
        (("a\\b",), "a\\b", False),
        (("*.log",), "a.log\n", False),
        (("logs/**/*.log",), "logs/a\nb/c.log", True),
        (("*.py", "!a/", "a/b.py"), "a/b.py", True),
    ],
)
def test_patterns_match_as_gitignore_does(patterns: tuple[str, ...], path: str, expected: bool) -> None:
    assert matches(patterns, path) is expected


@given(ANY_TEXT)
@example("")
@example("..")
@example("/")
def test_no_path_makes_matching_raise(path: str) -> None:
    assert matches(("*", "!*.md", "a/**/b", "[a-z]/"), path) in (True, False)


@pytest.mark.parametrize(
    "pattern", ["[z-a]", "!", "a\\", "", "  ", "# words", "a[", "x" * (MAX_PATTERN_CHARACTERS + 1)]
)
def test_a_bad_pattern_is_named(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_patterns(("*.py", pattern))
    assert repr(pattern[:40])[:-1] in str(refusal.value)
    assert refusal.value.field == "match"


@example("[[]")
# Odd brackets such as gitignore's "[[]": Python's re may read it otherwise one day and says so; today both agree.
@pytest.mark.filterwarnings("ignore:Possible .*set:FutureWarning")
@given(st.text(st.sampled_from("a*?[]!-^\\/#. \x00é\udce9"), max_size=12))
@example("[[]")
def test_a_pattern_is_refused_or_works_but_never_breaks(pattern: str) -> None:
    with suppress(InvalidInput):
        check_patterns((pattern,))
    assert matches((pattern,), "a/b") in (True, False)


@pytest.mark.parametrize("patterns", [(), ("*.py",) * (MAX_PATTERNS + 1)])
def test_an_empty_or_endless_list_is_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        check_patterns(patterns)


@pytest.mark.parametrize("pattern", ["**/a/**/b/**/c", "**/a/**/b/**/c/**/d", "a*a*a*a*a*b"])
@pytest.mark.parametrize("path", ["a/b/" * 1000 + "x", "a" * 4000])
@pytest.mark.timeout(20)  # backtracking takes minutes to hours here; RE2 takes milliseconds
def test_no_path_keeps_the_matcher_busy(pattern: str, path: str) -> None:
    assert not matches((pattern,), path)


@given(st.lists(st.lists(PATTERN, min_size=1, max_size=4), min_size=1, max_size=8), PATH)
def test_the_first_list_that_matches_wins_and_in_a_list_the_last_pattern(lists: list[list[str]], path: str) -> None:
    """The same, a pattern at a time with Python's own engine."""

    def is_matched(patterns: list[str]) -> bool:
        found = False
        for pattern in patterns:
            text, includes = GitIgnoreSpecPattern.pattern_to_regex(pattern)
            if text is not None and re.search(text, path, re.DOTALL):
                found = bool(includes)
        return found

    expected = next((number for number, patterns in enumerate(lists) if is_matched(patterns)), None)
    assert PathRules(tuple(patterns) for patterns in lists).first(path) == expected


@pytest.mark.parametrize("rules", [1, 999, 1_000, 1_001, 2_500])
def test_any_number_of_rules(rules: int) -> None:
    compiled = PathRules((f"dir{number}/**/*.x", f"*.y{number}") for number in range(rules))
    for number in {0, rules // 2, rules - 1}:
        assert compiled.first(f"src/a.y{number}") == number
        assert compiled.first(f"dir{number}/a/b.x") == number
    assert compiled.first("src/a.py") is None


def test_as_many_patterns_as_a_policy_may_have() -> None:
    """100,000 in one filter do not compile."""
    compiled = PathRules(tuple(f"*.{rule}-{number}" for number in range(100)) for rule in range(1_000))
    assert [compiled.first(path) for path in ("a.0-0", "a.999-99", "a.500-7", "a.1000-1")] == [0, 999, 500, None]


def test_no_rules_match_nothing() -> None:
    assert PathRules([]).first("a") is None


def test_what_an_older_version_kept_is_no_error() -> None:
    assert PathRules([("[[:space:]]x", "*.md"), ("**",)]).first("a.md") == 0


CLASSES = [
    "[[:digit:]]x",
    "[[:digit:]]*.log",
    "[^[:alpha:]]b",
    "[![:upper:][:digit:]]*",
    "[a[:digit:]-]z",
    "[[:xdigit:]]\\[",
]
NAMES = ["7x", "7a.log", "da.log", "dx", "7b", "ab", "Xb", "-b", "az", "-z", "5z", "f[", "x", "]x", "[x", "x:"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that git looks after."""
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


@pytest.mark.parametrize("pattern", [*CLASSES, "[]a]x", "[!]a]x", "[]-]x", "*.py", "a/**/b", "[[]x", "[a-c[:digit:]]?"])
def test_sets_match_as_git_does(pattern: str, repository: Path) -> None:
    check_patterns((pattern,))
    (repository / ".gitignore").write_text(f"{pattern}\n")
    asked = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "--stdin"],
        input="\n".join(NAMES),
        capture_output=True,
        text=True,
        check=False,
    )
    assert [name for name in NAMES if matches((pattern,), name)] == asked.stdout.split()


@pytest.mark.parametrize("pattern", ["[[:space:]]x", "[[:nonsense:]]", "[[::]]", "[a\\]b]", "x[\\]]"])
def test_a_set_that_would_be_read_in_another_way_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="pattern"):
        check_patterns((pattern,))
