"""``./dev``, as far as it goes without installing anything."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEV = Path(__file__).resolve().parent.parent / "dev"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, DEV, *args], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("dev_script", str(DEV))
    spec = importlib.util.spec_from_loader("dev_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("args", [(), ("help",), ("--help",)])
def test_help_lists_what_there_is(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.returncode == 0
    assert all(
        f"\n  {verb} " in done.stdout
        for verb in (
            "up",
            "demo",
            "test",
            "thorough",
            "lint",
            "types",
            "bench",
            "sim",
            "chaos",
            "fuzz",
            "proof",
            "sbom",
            "audit",
        )
    )


def test_unknown_verb_is_named() -> None:
    done = run("tset")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no verb 'tset'" in done.stderr


@pytest.mark.parametrize(
    "args", [["-n", "0"], ["-n4"], ["--numprocesses=3"], ["-p", "no:xdist"], ["-pno:xdist"], ["--pdb", "-k", "x"]]
)
def test_own_choice_of_processes_is_kept(dev: ModuleType, args: list[str]) -> None:
    assert dev.spread(args) == []


def test_tests_run_in_two_processes(dev: ModuleType) -> None:
    assert dev.spread(["tests/test_tidy.py", "-k", "name"]) == ["-n", "2", "--dist", "loadgroup"]
