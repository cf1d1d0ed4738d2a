"""gitignore(5) as git itself reads it: the lines of a rules file, and which of them is the last to match an entry.

Not pathspec: that lets a pattern that names a folder speak for what is below it, where git judges one entry after the
other from the outermost on, and it reads sets, ``**`` beside other characters and line ends otherwise. All is bytes,
as in git: a ``?`` is one byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final, NamedTuple

_BYTES: Final = range(256)
_SPECIAL: Final = re.compile(rb"[*?\[\\]")


def _class(text: str) -> frozenset[int]:
    return frozenset(text.encode("ascii"))


_PRINTED: Final = frozenset(range(0x21, 0x7F))
_ALNUM: Final = _class("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_CLASSES: Final[dict[bytes, frozenset[int]]] = {
    b"alnum": _ALNUM,
    b"alpha": _ALNUM - _class("0123456789"),
    b"blank": _class(" \t"),
    b"cntrl": frozenset({*range(0x20), 0x7F}),
    b"digit": _class("0123456789"),
    b"graph": _PRINTED,
    b"lower": frozenset(range(0x61, 0x7B)),
    b"print": _PRINTED | _class(" "),
    b"punct": _PRINTED - _ALNUM,
    b"space": _class(" \t\n\r"),
    b"upper": frozenset(range(0x41, 0x5B)),
    b"xdigit": _class("0123456789ABCDEFabcdef"),
}
"""The classes of ``[[:digit:]]`` and the like, with git's own idea of a space."""


class Rule(NamedTuple):
    """One line of a rules file. ``ignores`` is False for one with ``!``; ``line`` counts from 1."""

    source: str
    line: int
    text: str
    ignores: bool


class _Glob(NamedTuple):
    rule: Rule
    only_directories: bool
    of_name: bool
    """Without a slash, but for the last: matched with the entry's name alone."""
    expression: bytes


class _Side(NamedTuple):
    """The globs of names, or those of paths, as one expression; the group that matched says which it was."""

    expression: re.Pattern[bytes]
    indexes: list[int]


class RuleList:
    """The rules of one file. ``source`` is what an explanation calls it."""

    def __init__(self, text: bytes, source: str) -> None:
        self.text, self.source = text, source
        self._globs = list(_globs(text, source))

    def __bool__(self) -> bool:
        return bool(self._globs)

    def last_match(self, folder: bytes, name: bytes, *, directory: bool) -> Rule | None:
        """Return the last rule that matches this very entry; ``folder`` ends in ``/``, or is that of the rules: empty.

        That a folder above the entry is ignored is another question, to be asked first.
        """
        of_name, of_path = self._of_directories if directory else self._of_files
        found = -1
        if of_name is not None and (match := of_name.expression.fullmatch(name)):
            found = of_name.indexes[(match.lastindex or 1) - 1]
        if of_path is not None and (match := of_path.expression.fullmatch(folder + name)):
            found = max(found, of_path.indexes[(match.lastindex or 1) - 1])
        return self._globs[found].rule if found >= 0 else None

    @cached_property
    def _of_files(self) -> tuple[_Side | None, _Side | None]:
        return self._side(names=True, directory=False), self._side(names=False, directory=False)

    @cached_property
    def _of_directories(self) -> tuple[_Side | None, _Side | None]:
        return self._side(names=True, directory=True), self._side(names=False, directory=True)

    def _side(self, *, names: bool, directory: bool) -> _Side | None:
        # The last rule first: of alternatives, re takes the first that matches.
        indexes = [
            index
            for index, glob in reversed(list(enumerate(self._globs)))
            if glob.of_name is names and (directory or not glob.only_directories)
        ]
        if not indexes:
            return None
        alternatives = b"|".join(b"(" + self._globs[index].expression + b")" for index in indexes)
        return _Side(re.compile(alternatives, re.DOTALL), indexes)


def _globs(text: bytes, source: str) -> Iterator[_Glob]:
    """Yield the rules of a file in their order, less those that can never match."""
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line or line.startswith(b"#"):
            continue
        pattern = _trimmed(line.removesuffix(b"\r").partition(b"\0")[0])
        rule = Rule(source, number, pattern.decode("utf-8", "backslashreplace"), not pattern.startswith(b"!"))
        pattern = pattern.removeprefix(b"!")
        only_directories = pattern.endswith(b"/")
        pattern = pattern.removesuffix(b"/")
        of_name = b"/" not in pattern
        expression = _expression(pattern.removeprefix(b"/"), of_name=of_name) if pattern else None
        if expression is not None:
            yield _Glob(rule, only_directories, of_name, expression)


def _trimmed(line: bytes) -> bytes:
    """Return a line less the spaces at its end; one behind a backslash stays."""
    kept = at = 0
    while at < len(line):
        quotes = line.startswith(b"\\", at)
        at += 1 + quotes
        if quotes or line[at - 1 : at] != b" ":
            kept = at
    return line[:kept]


def _expression(glob: bytes, *, of_name: bool) -> bytes | None:
    """Return a glob as a regular expression over the whole name or path; None if it can never match."""
    special = _SPECIAL.search(glob)
    start = special.start() if special else len(glob)
    # As git: what stands before the first special character is compared and cut off, so that in a path the `**` of
    # `a**/b` stands at the start of what is left, and reaches over folders.
    tokens = _tokens(glob[start:], of_name=of_name)
    return None if tokens is None else re.escape(glob[:start]) + _joined(tokens)


class _Token(NamedTuple):
    expression: bytes
    star: bool = False
    """Any run of characters inside of one name."""
    bounds: bool = False
    """Holds, or may hold, a slash."""


def _tokens(glob: bytes, *, of_name: bool) -> list[_Token] | None:
    tokens: list[_Token] = []
    at = 0
    while at < len(glob):
        char = glob[at : at + 1]
        if char == b"*":
            token, at = _stars(glob, at, of_name=of_name)
        elif char == b"?":
            token, at = _Token(b"[^/]"), at + 1
        elif char == b"[":
            found = _set(glob, at + 1)
            if found is None:
                return None
            token, at = _Token(_any_of(found[0])), found[1]
        else:
            at += char == b"\\"
            if at == len(glob):
                return None
            token, at = _Token(re.escape(glob[at : at + 1]), bounds=glob[at : at + 1] == b"/"), at + 1
        tokens.append(token)
    return tokens


def _stars(glob: bytes, at: int, *, of_name: bool) -> tuple[_Token, int]:
    end = at
    while glob[end : end + 1] == b"*":
        end += 1
    bounded = (at == 0 or glob[at - 1 : at] == b"/") and (end == len(glob) or glob.startswith((b"/", b"\\/"), end))
    if of_name or end - at == 1 or not bounded:
        return _Token(b"[^/]*", star=True), end
    if glob.startswith(b"/", end):
        return _Token(b"(?:.*/)?", bounds=True), end + 1
    return _Token(b".*", bounds=True), end


def _joined(tokens: list[_Token]) -> bytes:
    """Return the tokens as one expression that does not try a star's other lengths in vain.

    What stands between two stars of one name may be taken where it comes first: the second star takes the rest. So
    many stars cost no more than their number times the name's length.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(tokens):
        end = at + 1
        if tokens[at].star:
            while end < len(tokens) and not tokens[end].star and not tokens[end].bounds:
                end += 1
            piece = b"".join(token.expression for token in tokens[at + 1 : end])
            if end < len(tokens) and tokens[end].star:
                parts.append(b"(?>[^/]*?" + piece + b")")
                at = end
                continue
            end = at + 1
        parts.append(tokens[at].expression)
        at = end
    return b"".join(parts)


def _any_of(members: frozenset[int]) -> bytes:
    """Return an expression for one byte of these, never a slash; of none it matches nothing."""
    listed = b"".join(re.escape(bytes((byte,))) for byte in sorted(members - {0x2F}))
    return b"[" + listed + b"]" if listed else b"(?!)"


def _set(glob: bytes, at: int) -> tuple[frozenset[int], int] | None:
    """Return what a set in brackets takes, and where it ends; None if it is not closed or names no class.

    ``at`` is behind the opening bracket.
    """
    negated = glob[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    before = 0  # what a range may begin with; 0 where it may not
    first = True
    while first or glob[at : at + 1] != b"]":
        first = False
        found = _member(glob, at, before)
        if found is None:
            return None
        taken, before, at = found
        members |= taken
    return frozenset(set(_BYTES) - members if negated else members), at + 1


def _member(glob: bytes, at: int, before: int) -> tuple[frozenset[int], int, int] | None:
    """Return the bytes of one member of a set, what the next range may begin with, and where the next member is."""
    char = glob[at : at + 1]
    if not char:
        return None
    following = glob[at + 1 : at + 2]
    if char == b"\\":
        return (frozenset(following), following[0], at + 2) if following else None
    if char == b"-" and before and following and following != b"]":
        quoted = following == b"\\"
        end = glob[at + 1 + quoted : at + 2 + quoted]
        return (frozenset(range(before, end[0] + 1)), 0, at + 2 + quoted) if end else None
    if char == b"[" and following == b":":
        close = glob.find(b"]", at + 2)
        if close < 0:
            return None
        if close > at + 2 and glob[close - 1 : close] == b":":
            named = _CLASSES.get(glob[at + 2 : close - 1])
            return (named, 0, close + 1) if named is not None else None
    return frozenset(char), char[0], at + 1
