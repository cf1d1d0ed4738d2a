"""``orchestrator audit`` and ``workspaces --at``: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Recorded, Run


def read(run: Run, recorded: Recorded, *arguments: str) -> Any:
    ran = run(*arguments, "--json", "--database-url", recorded.url)
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def text(run: Run, recorded: Recorded, *arguments: str) -> str:
    ran = run(*arguments, "--database-url", recorded.url)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_the_summary_in_words_and_numbers(run: Run, recorded: Recorded) -> None:
    told = text(run, recorded, "audit", "summary")
    assert re.search(r"restarts avoided +2 = 3 writes covered - 1 restart\b", told)
    assert re.search(r"oldest write waited to its start +p50 5s, p90 5s, p99 5s, max 5s", told)
    found = read(run, recorded, "audit", "summary", "--fleet", "blue")
    assert (found["writes_covered"], found["restarts_avoided"]) == (3, 2)
    assert read(run, recorded, "audit", "summary", "--until", "2026-11-23T14:02:06Z")["restarts"] == 0


def test_storms_files_and_failures(run: Run, recorded: Recorded) -> None:
    assert [item["id"] for item in read(run, recorded, "audit", "storms")["items"]] == [recorded.restart]
    assert recorded.restart in text(run, recorded, "audit", "storms", "--workspace", "ws")
    assert "No restart." in text(run, recorded, "audit", "storms", "--workspace", "held")
    paths = [item["path"] for item in read(run, recorded, "audit", "hot-files", "--limit", "2")["items"]]
    assert paths == ["src/late.py", "sp\x1b[31mace.py"]
    assert "sp\\x1b[31mace.py" in text(run, recorded, "audit", "hot-files")
    assert "No write." in text(run, recorded, "audit", "hot-files", "--fleet", "none")
    assert read(run, recorded, "audit", "failures")["gave_up"] == 0
    assert "cycles failed" in text(run, recorded, "audit", "failures")


def test_exports_of_both_kinds_in_every_format(run: Run, recorded: Recorded, tmp_path: Path) -> None:
    def exported(*arguments: str) -> str:
        return text(run, recorded, "audit", "export", *arguments)

    assert [item["id"] for item in json.loads(exported("--of", "restarts", "--format", "json"))] == [recorded.restart]
    assert json.loads(exported("--of", "restarts"))["writes"] == 3
    header, first, *_ = exported("--format", "csv", "--fleet", "blue").splitlines()
    assert header.startswith("position,id,workspace,")
    assert ",ws," in first
    assert exported("--since", "2026-11-23T14:02:06Z", "--until", "2026-11-23T14:02:07Z").count("\n") == 2
    file = tmp_path / "restarts.csv"
    summary = read(run, recorded, "audit", "export", "--of", "restarts", "--format", "csv", "--output", str(file))
    assert summary == {"restarts": 1, "file": str(file)}
    assert file.read_bytes().count(b"\r\n") == 2


def test_workspaces_as_they_were(run: Run, recorded: Recorded) -> None:
    def states(*arguments: str) -> dict[str, str]:
        return {item["id"]: item["state"] for item in read(run, recorded, "workspaces", *arguments)["items"]}

    assert states("--at", "2026-11-23T14:02:06Z") == {"held": "held", "ws": "running"}
    assert states("ws", "--at", "2026-11-23T14:02:01Z") == {"ws": "window_open"}
    assert states("--at", "2026-11-23T14:02:01Z", "--state", "window_open") == {"ws": "window_open"}
    assert states("ws") == {"ws": "window_open"}
    assert "running" in text(run, recorded, "workspaces", "ws", "--at", "2026-11-23T14:02:06Z")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("workspaces", "ws", "--at", "2026-11-23T14:00:00Z"), "did not exist"),
        (("workspaces", "nobody"), "nobody"),
        (("workspaces", "--at", "2999-01-01T00:00:00Z"), "future"),
        (("workspaces", "--at", "soon"), "--at"),
        (("audit", "summary", "--workspace", "nobody"), "nobody"),
        (("audit", "storms", "--since", "soon"), "--since"),
        (("audit", "failures", "--since", "2026-11-24T00:00:00Z", "--until", "2026-11-23T00:00:00Z"), "--since"),
        (("restarts", "--since", "2026-11-24T00:00:00Z", "--until", "2026-11-23T00:00:00Z"), "--since"),
        (("audit", "hot-files", "--limit", "-1"), "limit"),
        (("audit", "export", "--format", "xml"), "--format"),
        (("audit", "export", "--of", "people"), "--of"),
        (("audit", "export", "--after", "-1"), "--after"),
        (("audit", "export", "--workspace", "nobody"), "nobody"),
        (("audit", "export", "--until", "soon"), "--until"),
    ],
)
def test_bad_input_is_one_line(run: Run, recorded: Recorded, arguments: tuple[str, ...], said: str) -> None:
    ran = run(*arguments, "--database-url", recorded.url)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
