"""``orchestrator doctor`` on installations that were really broken, one way each, and on one that runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.policy import PolicyPatch
from orchestrator.domain.serving import Serving
from orchestrator.domain.state import Registration
from orchestrator.owner_key import make_owner_key
from orchestrator.sealing.keys import make_key_file
from orchestrator.service.append import Author
from orchestrator.service.operate import Operator
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.cli.conftest import Run
from tests.servers.process import free_port
from tests.servers.redis import RedisServer


@pytest.fixture
def installed(
    postgres_url: str, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Separate processes as the README has them: a worker and a beat were just seen, a key is there."""
    make_key_file(tmp_path / "seal.key", "log.example.com")
    settings = {
        "ORCHESTRATOR_DATABASE_URL": postgres_url,
        "ORCHESTRATOR_BROKER_URL": redis_server.url,
        "ORCHESTRATOR_SEAL_KEY": str(tmp_path / "seal.key"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    store = open_store(postgres_url)
    store.ticked()
    store.note_worker("host:1:x", "host", Serving(executors=frozenset({"command"}), pools=frozenset({"default"})), 4)
    store.close()
    return settings


def examined(run: Run, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    ran = run("doctor", "--json", *arguments)
    return ran.code, {check["name"]: check for check in json.loads(ran.out)["checks"]}


def test_a_sound_installation_has_nothing_to_mend(installed: dict[str, str], run: Run) -> None:
    code, checks = examined(run)
    assert (code, [check for check in checks.values() if check["finding"] != "good"]) == (0, [])
    names = ["versions", "settings", "seal key", "broker", "database", "clock", "beat", "worker", "claims", "seal"]
    assert list(checks) == [*names, "secrets", "keys"]
    assert checks["keys"]["detail"].startswith("0 live; callers without one may do all but")
    plain = run("doctor")
    assert (plain.code, "wrong" in plain.out, "->" in plain.out) == (0, False, False)


def _no_broker(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ORCHESTRATOR_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")


def _memory_broker(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.delenv("ORCHESTRATOR_BROKER_URL")


def _open_key(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    Path(installed["ORCHESTRATOR_SEAL_KEY"]).chmod(0o644)


def _lost_key(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    Path(installed["ORCHESTRATOR_SEAL_KEY"]).unlink()


def _no_server(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ORCHESTRATOR_DATABASE_URL", f"postgresql://ann:hunter2@127.0.0.1:{free_port()}/x")


def _mistyped_url(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://ann:hunt@er2:x/y@127.0.0.1/x")


def _mistyped_name(installed: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ORCHESTRATOR_SEALKEY", "/x")


@pytest.mark.parametrize(
    ("broken", "name", "said"),
    [
        (_no_broker, "broker", "does not answer"),
        (_memory_broker, "broker", "memory://"),
        (_open_key, "seal key", "chmod 600"),
        (_lost_key, "seal key", "there is no seal key"),
        (_no_server, "database", "postgresql+psycopg://ann@127.0.0.1"),
        (_mistyped_url, "settings", "percent-encoded"),
        (_mistyped_name, "settings", "did you mean ORCHESTRATOR_SEAL_KEY"),
    ],
)
def test_what_is_broken_is_named_with_what_to_mend(
    broken: Callable[[dict[str, str], pytest.MonkeyPatch], None],
    name: str,
    said: str,
    installed: dict[str, str],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(installed, monkeypatch)
    code, checks = examined(run)
    wrong = {key: check for key, check in checks.items() if check["finding"] == "wrong"}
    assert (code, list(wrong)) == (1, [name])
    assert said in wrong[name]["detail"]
    assert wrong[name]["mend"]
    assert "hunt" not in json.dumps(checks)


def test_nobody_there_and_a_plain_secret(sqlite_url: str, run: Run) -> None:
    """A data folder whose `up` has ended, with files that others can read and a target of an earlier version."""
    data = Path(sqlite_url.removeprefix("sqlite:///")).parent
    target = {"argv": ["true"], "env": {"API_TOKEN": "hunter2"}}
    registration = Registration(fleet="default", labels={}, executor="command", target=target, policy=PolicyPatch())
    store = open_store(sqlite_url)
    Operator(store, TimeOrderedIds()).register("old", registration, Author(actor="local:ann"))
    store.close()
    data.chmod(0o755)
    make_key_file(data / "seal.key", "log.example.com")
    code, checks = examined(run, "--data", str(data))
    assert code == 1
    wrong = [name for name, check in checks.items() if check["finding"] == "wrong"]
    assert wrong == ["files", "beat", "worker"]
    assert checks["files"]["mend"].startswith(f"chmod go= {data}")
    assert (checks["secrets"]["finding"], "old" in checks["secrets"]["detail"]) == ("warning", True)
    assert "hunter2" not in json.dumps(checks)


def made(run: Run, name: str, *more: str) -> str:
    ran = run("keys", "create", "--name", name, "--role", "writer", "--json", *more)
    assert ran.code == 0
    identifier: str = json.loads(ran.out)["id"]
    return identifier


def test_a_closed_api_without_keys_serves_nobody(
    installed: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_LOOPBACK", "closed")
    code, checks = examined(run)
    assert (code, checks["keys"]["finding"], "serves nobody" in checks["keys"]["detail"]) == (1, "wrong", True)
    assert "orchestrator keys create" in checks["keys"]["mend"]
    ended = made(run, "ended")
    made(run, "live", "--expires", "15d")
    assert run("keys", "revoke", ended).code == 0
    code, checks = examined(run)
    assert (code, checks["keys"]["finding"], checks["keys"]["detail"]) == (0, "good", "1 live")
    run("keys", "revoke", "live")
    make_owner_key(tmp_path / "owner.key")
    monkeypatch.setenv("ORCHESTRATOR_OWNER_KEY", str(tmp_path / "owner.key"))
    assert examined(run)[1]["keys"]["detail"] == "0 live, and the owner's"


def test_keys_that_end_soon_are_named_until_another_takes_their_place(installed: dict[str, str], run: Run) -> None:
    made(run, "ci", "--expires", "13d")
    made(run, "late", "--expires", "15d")
    code, checks = examined(run)
    keys = checks["keys"]
    assert (code, keys["finding"], "2 live; within 14 days expires ci at 20" in keys["detail"]) == (0, "warning", True)
    assert "late" not in keys["detail"]
    assert "`orchestrator keys rotate ci`" in keys["mend"]
    assert run("keys", "rotate", "late").code == 0
    assert "late" not in examined(run)[1]["keys"]["detail"], "the older one is to end"


def test_an_auditors_login_sees_who_has_a_key(
    installed: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch, reader_url: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", reader_url)
    code, checks = examined(run)
    assert (code, checks["keys"]["finding"]) == (0, "good")


def test_no_data_folder_at_all(run: Run, tmp_path: Path) -> None:
    code, checks = examined(run, "--data", str(tmp_path / "nowhere"))
    assert (code, checks["database"]["finding"]) == (1, "wrong")
    assert not (tmp_path / "nowhere").exists()
