"""``orchestrator policy test``: of a file, of a database, of a running server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Recorded, Run, Server, act

RULES = """
quiet = "4s"
[[rules]]
match = ["docs/**", "*.md", "!README.md"]
action = "record"
[[rules]]
match = ["config/**"]
quiet = "3s"
"""


def test_rules_of_a_file_need_nothing_else(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(RULES)
    paths = ("--path", "docs/a.txt", "--path", "README.md", "--path", "config/a")
    assert run("policy", "test", str(file), *paths).out.splitlines() == [
        f"docs/a.txt: record, by rule 1 of 2 ({file}); it is kept in the log and restarts nothing",
        "  rule 1: docs/** matches",
        f"README.md: restart, as none of 2 rules matches ({file}); quiet 4s, max_wait 1m",
        "  rule 1: !README.md takes it out",
        "  rule 2: no pattern of it matches",
        f"config/a: restart, by rule 2 of 2 ({file}); quiet 3s, max_wait 1m",
        "  rule 1: no pattern of it matches",
        "  rule 2: config/** matches",
    ]
    answer = json.loads(run("policy", "test", str(file), "--path", "config/a", "--json").out)
    assert answer["items"][0] | {"said": None} == {
        **{"path": "config/a", "action": "restart", "rule": 2},
        **{"quiet": "3s", "max_wait": "1m", "said": None},
    }
    both = run("policy", "test", str(file), "--path", "x", "--fleet", "f")
    assert (both.code, both.err.count("\n")) == (2, 1)


def test_rules_in_force_of_a_database_and_of_a_server(run: Run, recorded: Recorded, server: Server) -> None:
    told = run("policy", "test", "--path", "a.py", "--workspace", "ws", "--database-url", recorded.url)
    assert told.out == "a.py: restart, as there are no rules; quiet 5s, max_wait 1m\n"
    act(run, server, "policy", "set", "--fleet", "ruled", 'rules=[{"match": "*.md", "action": "record"}]')
    answer = act(run, server, "policy", "test", "--fleet", "ruled", "--path", "x.md")
    assert (answer["from"], answer["items"][0]["rule"], answer["items"][0]["action"]) == ("fleet:ruled", 1, "record")
