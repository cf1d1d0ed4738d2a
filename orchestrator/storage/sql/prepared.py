"""Statements that are spelled once and then handed to the driver as they are.

SQLAlchemy's way from a clause to its text and from the driver's rows to its own is walked at each use. For the few
statements that every transaction of the log needs it took half of what a commit cost (measured), so these are built by
SQLAlchemy once for each database and run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

Row = dict[str, Any]
Selected = sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]]
Build = Callable[[str], Selected]
"""Gives the statement for the name of a dialect."""

_Convert = Callable[[Any], Any]


class Prepared:
    """A selection with named parameters (``sa.bindparam``), spelled once for each dialect."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._spelled: dict[sa.Dialect, Spelled] = {}

    def on(self, dialect: sa.Dialect) -> Spelled:
        """Return it as a database's driver takes it."""
        spelled = self._spelled.get(dialect)
        if spelled is None:
            spelled = self._spelled[dialect] = Spelled(self._build(dialect.name), dialect)
        return spelled


class Spelled:
    """A selection as text, with what turns parameters into the driver's values and its rows into ours."""

    def __init__(self, statement: Selected, dialect: sa.Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        if "[POSTCOMPILE_" in self.text:
            raise TypeError(f"a prepared selection takes its lists by `one_of`, not by `in_`: {self.text}")
        binds = {name: bind for bind, name in compiled.bind_names.items()}
        converts = _only(
            {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in binds.items()}
        )
        self._read_anew = {name: bind.callable for name, bind in binds.items() if bind.callable is not None}
        self._constants = {name: bind.value for name, bind in binds.items() if name not in self._read_anew}
        for name, convert in converts:
            if self._constants.get(name) is not None:
                self._constants[name] = convert(self._constants[name])
        self._to_driver = dict(converts)
        self._order: Sequence[str] | None = compiled.positiontup
        columns = [(str(column.key), column.type) for column in statement.selected_columns]
        self._names = [name for name, _ in columns]
        if len(set(self._names)) < len(self._names):
            raise TypeError(f"a prepared selection's columns need names of their own, not {self._names}")
        self._from_driver = _only(
            {name: type_.dialect_impl(dialect).result_processor(dialect, None) for name, type_ in columns}
        )

    def values(self, given: Mapping[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
        """Return the parameters as the driver takes them; those that are not given are read anew or are constants."""
        new = {**given, **{name: read() for name, read in self._read_anew.items()}}
        for name, convert in self._to_driver.items():
            if name in new:
                new[name] = convert(new[name])
        values = {**self._constants, **new}
        return values if self._order is None else [values[name] for name in self._order]

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Row]:
        """Return the driver's rows by the names of their columns. Raises ``Unreadable``."""
        made = [dict(zip(self._names, row, strict=True)) for row in found]
        for name, convert in self._from_driver:
            for row in made:
                row[name] = convert(row[name])
        return made


class _Names(sa.types.TypeDecorator[Sequence[str]]):
    """Texts as one parameter of SQLite: a JSON list."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: sa.Dialect) -> str:
        """Return the list's text."""
        return json.dumps(value)


def one_of(column: sa.ColumnElement[str], given: str | Sequence[str], dialect: str) -> sa.ColumnElement[bool]:
    """Say that a column is one of some texts, or of those of a parameter: one text of SQL however many there are."""
    named, value = (given, None) if isinstance(given, str) else (None, list(given))
    if dialect == "sqlite":
        listed = sa.bindparam(named, value, type_=_Names(), unique=named is None, required=named is not None)
        return column.in_(sa.select(sa.func.json_each(listed).table_valued("value").c.value))
    type_ = postgresql.ARRAY(sa.Text())
    listed = sa.bindparam(named, value, type_=type_, unique=named is None, required=named is not None)
    return column == sa.func.any(listed)


def _only(converts: Mapping[str, _Convert | None]) -> list[tuple[str, _Convert]]:
    return [(name, convert) for name, convert in converts.items() if convert is not None]
