"""docs/security.md names tests that are there, and every requirement that binds us, once."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = (_ROOT / "docs" / "security.md").read_text(encoding="utf-8")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_ROW = re.compile(r"^\| \*\*([0-9]+\.[0-9]+\.[0-9]+)\*\* \| (.*) \| (.*) \|$", re.MULTILINE)

# OWASP ASVS 5.0.0, the rows that concern an API with keys, a log, workers and (later) a page.
_ROWS = """
1.2.1 1.2.2 1.2.3 1.2.4 1.2.5 1.2.10 1.3.6 2.2.1 2.2.2 2.2.3 2.3.3 2.3.4 2.4.1 3.2.1 3.2.2 3.3.1 3.3.2 3.3.3 3.3.4
3.4.1 3.4.2 3.4.3 3.4.4 3.4.5 3.4.6 3.4.7 3.4.8 3.5.1 3.5.2 3.5.3 3.5.8 4.1.1 4.1.3 4.1.4 4.1.5 4.2.1 4.2.5 6.3.1
6.3.2 6.5.2 7.2.2 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.4 7.4.5 7.5.2 8.1.1 8.2.1 8.2.2 8.2.3 8.3.1 8.3.2 8.4.1 11.2.1
11.4.1 11.4.2 11.4.3 11.4.4 11.5.1 12.1.1 12.2.1 12.3.1 12.3.2 12.3.3 13.2.2 13.2.3 13.2.4 13.2.5 13.2.6 13.3.1
13.3.2 13.3.3 13.3.4 13.4.2 13.4.5 14.2.1 14.2.6 14.3.1 14.3.2 14.3.3 15.1.2 15.2.2 15.3.2 15.3.4 15.4.2 16.2.1
16.2.2 16.2.3 16.2.4 16.2.5 16.3.2 16.4.1 16.4.2 16.4.3 16.5.1 16.5.2 16.5.3 16.5.4
"""


@cache
def _tests_of(file: str) -> frozenset[str]:
    path = _ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("file", "name"), sorted(set(_TEST.findall(_PAGE))))
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert name in _tests_of(file)


def test_the_page_has_each_row_that_binds_once() -> None:
    assert [row for row, _, _ in _ROW.findall(_PAGE)] == _ROWS.split()


def test_each_row_has_what_holds_it_or_says_that_it_does_not_hold() -> None:
    unheld = [
        row
        for row, _, held in _ROW.findall(_PAGE)
        if not (_TEST.search(held) or "does not hold" in held or "./dev " in held)
    ]
    assert unheld == []
    assert len(_TEST.findall(_PAGE)) > 100, "the page is read as it is written"
