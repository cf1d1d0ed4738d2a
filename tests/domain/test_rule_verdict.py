from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.policy import Action, Rule, path_rules
from orchestrator.domain.rule_verdict import RuleSaid, rule_verdict
from orchestrator.errors import InvalidInput

DOCS = Rule(match=("docs/**", "*.md", "!README.md"), action=Action.RECORD)
CONFIG = Rule(match=("config/**",), quiet_ms=3_000)


@pytest.mark.parametrize(
    ("path", "decided", "said"),
    [
        ("docs/x.txt", 1, [("docs/**", True)]),
        ("README.md", None, [("!README.md", False), (None, False)]),
        ("config/a.toml", 2, [(None, False), ("config/**", True)]),
        ("config/README.md", 2, [("!README.md", False), ("config/**", True)]),
        ("src/a.py", None, [(None, False), (None, False)]),
    ],
)
def test_the_first_rule_whose_last_word_is_yes_decides(
    path: str, decided: int | None, said: list[tuple[str | None, bool]]
) -> None:
    verdict = rule_verdict([DOCS, CONFIG], path)
    expected = [RuleSaid(number=number, pattern=one, matches=yes) for number, (one, yes) in enumerate(said, start=1)]
    assert (verdict.decided, list(verdict.said)) == (decided, expected)
    assert verdict.rule == (None if decided is None else (DOCS, CONFIG)[decided - 1])


_PATTERNS = st.sampled_from(
    ["*.md", "!*.md", "a/**", "!a/b", "/a", "b/", "**/c", "!c", "[ab]*", "\\!x", "!\\!x", "a/*"]
)
_PATHS = st.lists(st.sampled_from(["a", "b", "c", "x.md", "!x"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.lists(_PATTERNS, min_size=1, max_size=4).map(tuple), max_size=4), _PATHS)
def test_what_is_said_is_what_is_done(lists: list[tuple[str, ...]], path: str) -> None:
    rules = [Rule(match=patterns) for patterns in lists]
    verdict = rule_verdict(rules, path)
    first = path_rules(tuple(rules)).first(path)
    assert verdict.decided == (None if first is None else first + 1)
    assert [said.matches for said in verdict.said] == [False] * (len(verdict.said) - (first is not None)) + [True] * (
        first is not None
    )


def test_a_path_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(InvalidInput, match="path is empty"):
        rule_verdict([DOCS], "")
