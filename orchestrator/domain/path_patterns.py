"""Patterns of path rules, in gitignore syntax: which are refused, and the regular expression that each one is.

Source: CONTRACT section 2 (``rules``), and gitignore(5).
"""

from __future__ import annotations

import re
import warnings
from typing import Final, NamedTuple

import re2
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from orchestrator.errors import InvalidInput

MAX_PATTERNS = 100
MAX_PATTERN_CHARACTERS = 1000

_PRIVATE_FROM = 0xF0000
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
"""The classes of ``[[:digit:]]`` and the like, spelled out: pathspec 1.1 takes their letters for single characters."""
_SET = re.compile(r"\\.|\[[!^]?\]?(?:\\.|\[:[^\]]*:\]|[^\]\\])*+\]", re.DOTALL)
"""An escaped character, or a set in brackets as git reads it."""
_IN_SET = re.compile(r"\\.|\[:([^\]]*):\]", re.DOTALL)


class Expression(NamedTuple):
    """A pattern as RE2 takes it. ``includes`` is False for one with ``!``."""

    text: str
    includes: bool


def check_patterns(patterns: tuple[str, ...]) -> None:
    """Raise ``InvalidInput`` that names the first pattern which is broken, too long or can never match."""
    if not patterns:
        raise InvalidInput("the list of patterns is empty; give at least one, such as **", field="match")
    if len(patterns) > MAX_PATTERNS:
        raise InvalidInput(f"{len(patterns)} patterns in one list; at most {MAX_PATTERNS} are allowed", field="match")
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN_CHARACTERS:
            start = f"{pattern[:40]!r}..."
            raise InvalidInput(f"pattern {start} is longer than {MAX_PATTERN_CHARACTERS} characters", field="match")
        _check_sets(pattern)
        if _expression(pattern) is None:
            raise InvalidInput(
                f"pattern {pattern!r} can never match (blank, a comment or not closed); correct or remove it",
                field="match",
            )


def expression_of(pattern: str) -> Expression | None:
    """Return the regular expression of a pattern; None for one that can never match.

    Never raises: what an older version accepted and kept is read as well as it can be.
    """
    try:
        return _expression(pattern)
    except InvalidInput:
        return None


def encodable(text: str) -> str:
    """Return ``text`` with each surrogate as one private character of its own: RE2 takes UTF-8 only."""
    return _SURROGATE.sub(lambda found: chr(_PRIVATE_FROM + ord(found[0])), text)


def options() -> re2.Options:
    """Return RE2's options: a dot is any character, as a name may hold a line's end; nothing is printed."""
    chosen = re2.Options()
    chosen.dot_nl, chosen.log_errors = True, False
    return chosen


def _expression(pattern: str) -> Expression | None:
    try:
        with warnings.catch_warnings():
            # `[[]` is a good set of one character; re warns of what a later Python might read into its regex.
            warnings.simplefilter("ignore", FutureWarning)
            text, includes = GitIgnoreSpecPattern.pattern_to_regex(with_classes(encodable(pattern)))
        if text is None or includes is None:
            return None
        re2.compile(text, options())
    except (ValueError, re.error, re2.error) as error:
        raise InvalidInput(f"pattern {pattern!r} is not gitignore syntax: {error}", field="match") from None
    return Expression(text, includes)


def with_classes(pattern: str) -> str:
    """Return a pattern with the classes in its sets spelled out; one that is not known is left as it is."""

    def spelled(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else _CLASSES.get(found[1], found[0])

    return _SET.sub(lambda found: _IN_SET.sub(spelled, found[0]) if found[0][0] == "[" else found[0], pattern)


def _check_sets(pattern: str) -> None:
    """Raise ``InvalidInput`` for sets that pathspec 1.1 reads in another way than git does."""
    for found in _SET.finditer(pattern):
        for inner in _IN_SET.finditer(found[0]) if found[0][0] == "[" else ():
            if inner[1] is None:
                raise InvalidInput(
                    f"pattern {pattern!r}: a backslash inside of [ ] is not supported; write ] first and - last there",
                    field="match",
                )
            if inner[1] not in _CLASSES:
                known = ", ".join(f"[:{name}:]" for name in _CLASSES)
                raise InvalidInput(f"pattern {pattern!r}: {inner[0]} is none of {known}", field="match")
