"""``audit checkpoint``, ``audit evidence``, ``audit keys``: from a key to a proof that is checked with one command."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.sealing.seal import seal_next
from orchestrator.service.record import AutoRegistration, Write, record_writes
from orchestrator.storage.opening import open_store
from orchestrator.time_ordered_ids import TimeOrderedIds
from tests.audit.sealing import SIGNING
from tests.cli.conftest import Recorded, Run


@pytest.fixture
def data(recorded: Recorded, tmp_path: Path) -> Path:
    """A data folder with history and no key."""
    folder = tmp_path / "data"
    shutil.copytree(recorded.data, folder)
    return folder


@pytest.fixture
def keyed(data: Path, run: Run) -> Path:
    """A data folder with history and a key."""
    assert run("audit", "keys", "new", str(data / "seal.key"), "--origin", "log.example.com").code == 0
    return data


def test_from_a_key_to_evidence_that_is_checked_with_one_command(keyed: Path, run: Run, recorded: Recorded) -> None:
    sealed = run("audit", "checkpoint", "--seal", "--data", str(keyed), "--json")
    assert sealed.code == 0
    size = json.loads(sealed.out)["size"]
    note = keyed / "checkpoints" / f"{size:020}.checkpoint"
    bundle, pubkey = keyed / "evidence.json", str(keyed / "seal.pub")
    assert run("audit", "evidence", recorded.restart, "--data", str(keyed), "-o", str(bundle)).code == 0
    checked = run("audit", "verify", str(bundle), "--pubkey", pubkey)
    assert (checked.code, "nothing in it was changed or left out" in checked.out) == (0, True)
    database = run("audit", "verify", "--data", str(keyed), "--checkpoint", str(note), "--pubkey", pubkey, "--json")
    verdicts = {item["promise"]: item["verdict"] for item in json.loads(database.out)["promises"]}
    assert (database.code, verdicts["S8"]) == (0, "good")


def test_an_edited_bundle_and_a_wrong_key_are_found(keyed: Path, run: Run, recorded: Recorded) -> None:
    run("audit", "checkpoint", "--seal", "--data", str(keyed))
    bundle = keyed / "evidence.json"
    run("audit", "evidence", recorded.restart, "--data", str(keyed), "-o", str(bundle))
    bundle.write_text(bundle.read_text().replace("local:ann", "local:eve"))
    edited = run("audit", "verify", str(bundle), "--pubkey", str(keyed / "seal.pub"))
    assert (edited.code, "altered" in edited.out + edited.err) == (1, True)
    run("audit", "keys", "new", str(keyed / "other.key"), "--origin", "log.example.com")
    foreign = run("audit", "verify", str(bundle), "--pubkey", str(keyed / "other.pub"))
    assert (foreign.code, "wrong key" in foreign.out + foreign.err) == (1, True)


def test_the_checkpoint_is_shown_and_written(keyed: Path, run: Run) -> None:
    run("audit", "checkpoint", "--seal", "--data", str(keyed))
    shown = run("audit", "checkpoint", "--data", str(keyed))
    assert (shown.code, "log.example.com" in shown.out) == (0, True)
    file = keyed / "newest.checkpoint"
    assert run("audit", "checkpoint", "--data", str(keyed), "--output", str(file)).code == 0
    assert file.read_text() in shown.out
    unwritable = run("audit", "checkpoint", "--data", str(keyed), "--output", str(keyed / "no" / "where"))
    assert (unwritable.code, unwritable.err.count("\n")) == (2, 1)


def test_without_a_key_or_a_checkpoint_each_command_says_so(data: Path, run: Run, recorded: Recorded) -> None:
    nothing = run("audit", "checkpoint", "--data", str(data))
    assert (nothing.code, "nothing is sealed yet" in nothing.err) == (2, True)
    keyless = run("audit", "checkpoint", "--seal", "--data", str(data))
    assert (keyless.code, "there is no seal key" in keyless.err) == (1, True)
    early = run("audit", "evidence", recorded.restart, "--data", str(data))
    assert (early.code, "not sealed yet" in early.err) == (2, True)
    unknown = run("audit", "evidence", "rst_nowhere", "--data", str(data))
    assert (unknown.code, "does not exist" in unknown.err) == (2, True)
    alone = run("audit", "checkpoint", "--trust-stored", "--data", str(data))
    assert (alone.code, "--seal" in alone.err) == (2, True)


def test_a_database_elsewhere_needs_the_key_named(data: Path, run: Run) -> None:
    refused = run("audit", "checkpoint", "--seal", "--database-url", f"sqlite:///{data / 'orchestrator.db'}")
    assert (refused.code, "ORCHESTRATOR_SEAL_KEY" in refused.err) == (2, True)


def test_a_lost_key_is_replaced_only_on_purpose(keyed: Path, run: Run) -> None:
    store = open_store(f"sqlite:///{keyed / 'orchestrator.db'}")
    assert seal_next(store, SIGNING, most=3) is not None  # by a key that is lost now
    store.close()
    refused = run("audit", "checkpoint", "--seal", "--data", str(keyed))
    assert (refused.code, "not signed with our key" in refused.err) == (1, True)
    assert run("audit", "checkpoint", "--seal", "--trust-stored", "--data", str(keyed)).code == 0


def test_keys_are_made_rotated_and_shown(tmp_path: Path, run: Run) -> None:
    file = str(tmp_path / "audit.key")
    made = run("audit", "keys", "new", file, "--json")
    assert json.loads(made.out)["public_file"] == str(tmp_path / "audit.pub")
    assert run("audit", "keys", "new", file).code == 2
    added = run("audit", "keys", "rotate", file)
    assert (added.code, "delete the line of the old one" in added.err) == (0, True)
    shown = run("audit", "keys", "public", file)
    assert shown.out == (tmp_path / "audit.pub").read_text()
    assert shown.out.splitlines()[1] == added.out.strip()
    assert json.loads(run("audit", "keys", "public", file, "--json").out)["keys"] == shown.out.splitlines()
    assert "PRIVATE" not in made.out + added.out + added.err + shown.out
    assert run("audit", "keys", "public", str(tmp_path / "nowhere")).code == 2
    assert run("keys", "seal").code == 2


def test_a_database_restored_from_a_backup_does_not_hold_what_was_sealed_after_it(
    keyed: Path, run: Run, recorded: Recorded
) -> None:
    """F35: the log ends before the checkpoint, and whoever kept that checkpoint outside is told so, loudly."""
    file, backup, pubkey = keyed / "orchestrator.db", keyed / "backup.db", str(keyed / "seal.pub")
    copy_database(file, backup)
    with closing(open_store(f"sqlite:///{file}")) as store:
        late = [Write(workspace="ws", path="later.py")]
        record_writes(store, late, actor="me", ids=TimeOrderedIds(), auto=AutoRegistration())
    assert run("audit", "checkpoint", "--seal", "--data", str(keyed)).code == 0
    kept = keyed.parent / "kept.checkpoint"
    assert run("audit", "checkpoint", "--data", str(keyed), "--output", str(kept)).code == 0
    verify = ("audit", "verify", "--data", str(keyed), "--checkpoint", str(kept), "--pubkey", pubkey)
    assert run(*verify).code == 0

    copy_database(backup, file)

    found = run(*verify, "--json")
    verdicts = {item["promise"]: item["verdict"] for item in json.loads(found.out)["promises"]}
    assert (found.code, verdicts["S8"]) == (1, "violated")
    assert "the log ends" in run(*verify).out


def copy_database(source: Path, target: Path) -> None:
    """Back a database up, or restore it."""
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as here:
        there.backup(here)


def test_a_key_is_made_once_where_it_is_asked_for_again(run: Run, tmp_path: Path) -> None:
    """As a second `docker compose up` does."""
    file = tmp_path / "seal.key"
    made = []
    for _ in range(2):
        ran = run("audit", "keys", "new", "--if-missing", str(file))
        made.append((ran.code, ran.out, file.read_bytes()))
    assert made[0] == made[1]
    assert run("audit", "keys", "new", str(file)).code == 2
    file.chmod(0o644)
    assert "chmod 600" in run("audit", "keys", "new", "--if-missing", str(file)).err
