"""Plans: how a database means to carry a statement out."""

from __future__ import annotations

import re

from bench.statements import Statement, driver

_NAMED = re.compile(r"%\((\w+)\)s")


def plan_of(url: str, statement: Statement) -> str:
    """Return the database's plan for a statement, one step a line."""
    sqlite = url.startswith("sqlite")
    explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
    with driver(url) as cursor:
        cursor.execute(f"{explain} {statement.sql}", statement.parameters)
        return "\n".join(str(row[3] if sqlite else row[0]) for row in cursor.fetchall())


def kept_plan_of(url: str, statement: Statement) -> str:
    """Return PostgreSQL's plan for a statement that a session keeps prepared: it does not know the values."""
    names: list[str] = []

    def numbered(named: re.Match[str]) -> str:
        if named[1] not in names:
            names.append(named[1])
        return f"${names.index(named[1]) + 1}"

    with driver(url) as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")
        cursor.execute("PREPARE kept AS " + _NAMED.sub(numbered, statement.sql))
        given = ", ".join(f"'{statement.parameters[name]}'" for name in names)
        cursor.execute(f"EXPLAIN EXECUTE kept{f'({given})' if given else ''}")
        return "\n".join(str(row[0]) for row in cursor.fetchall())


def scans(plan: str, table: str) -> bool:
    """Say whether a plan reads a table, or an index of it, from one end to the other: on PostgreSQL or on SQLite."""
    steps = [step.strip().removeprefix("->").strip() for step in plan.splitlines()]
    return any(step.startswith(f"Seq Scan on {table}") or f"{step} ".startswith(f"SCAN {table} ") for step in steps)
