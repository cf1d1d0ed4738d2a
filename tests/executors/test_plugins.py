from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import metadata
from pathlib import Path

import pytest

from orchestrator.errors import InvalidInput
from workers.executors import available, extras
from workers.supervision.supervisor import ProcessSupervisor

GOOD = """
from workers.executors.simulated import SimulatedExecutor

class Plugin(SimulatedExecutor):
    name = "plugged"
"""

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a real distribution with an entry point on the path."""

    def put(source: str, entry_point: str) -> None:
        (tmp_path / "plugged_in.py").write_text(source)
        info = tmp_path / "plugged_in-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[orchestrator.executors]\n{entry_point}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "plugged_in", raising=False)

    return put


def test_what_is_built_in(supervisor: ProcessSupervisor) -> None:
    assert sorted(available(None)) == ["command", "simulated"]
    assert sorted(available(supervisor)) == ["command", "process", "simulated"]
    assert all(executor.name == name for name, executor in available(supervisor).items())


def test_a_plugin_is_found(install: Install) -> None:
    install(GOOD, "plugged = plugged_in:Plugin")
    assert available(None)["plugged"].name == "plugged"


@pytest.mark.parametrize(
    ("source", "entry_point", "why"),
    [
        ("raise RuntimeError('boom')", "plugged = plugged_in:Plugin", "boom"),
        ("", "plugged = plugged_in:Plugin", "Plugin"),
        ("def Plugin(): return object()", "plugged = plugged_in:Plugin", "normalise"),
        (GOOD, "other = plugged_in:Plugin", "name = 'other'"),
        (GOOD, "command = plugged_in:Plugin", "taken"),
        (GOOD, "process = plugged_in:Plugin", "taken"),
        ("", "plugged = no_such_module:Plugin", "no_such_module"),
    ],
)
def test_a_broken_plugin_is_named(install: Install, source: str, entry_point: str, why: str) -> None:
    install(source, entry_point)
    with pytest.raises(InvalidInput, match=why) as refusal:
        available(None)
    assert refusal.value.field == entry_point.split()[0]


def test_who_lacks_an_extra_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.MODULES, "docker", "no_such_module")
    assert not extras.is_installed("docker")
    assert "pip install 'restart-orchestrator[docker]'" in str(extras.how_to_get("docker"))
    assert extras.how_to_get("command") is None


def test_each_extra_is_one_of_the_distribution() -> None:
    assert set(extras.MODULES) <= set(metadata("restart-orchestrator").get_all("Provides-Extra") or [])
    assert all(extras.is_installed(name) for name in extras.MODULES)
