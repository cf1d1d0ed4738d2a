"""Settings: where each comes from, which wins, and one clear line for every bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.audit.verify.database import Database, SourceUnavailable
from orchestrator.domain.policy import Edge, Mode, Policy
from orchestrator.errors import InvalidInput
from orchestrator.settings import Settings, load_settings
from orchestrator.storage.urls import database_name, database_url


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TOML file that ORCHESTRATOR_CONFIG names; empty as yet."""
    path = tmp_path / "orchestrator.toml"
    path.write_text("")
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", str(path))
    return path


def test_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = load_settings()
    assert settings.data == tmp_path / "restart-orchestrator"
    assert settings.url == f"sqlite:///{tmp_path}/restart-orchestrator/orchestrator.db"
    assert (settings.broker_url, settings.host, settings.port, settings.tick_ms) == (
        "memory://",
        "127.0.0.1",
        8321,
        1000,
    )
    assert (settings.slots, settings.max_concurrent, settings.auto_register_executor) == (None, None, None)
    assert settings.floor == Policy()


def test_the_data_folder_without_a_state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings().data == tmp_path / ".local" / "state" / "restart-orchestrator"


GOOD: list[tuple[str, str, str, Any]] = [
    ("DATA", "/srv/data", "data", Path("/srv/data")),
    ("DATABASE_URL", "postgresql://h/db", "url", "postgresql://h/db"),
    ("BROKER_URL", "redis://h:6379/0", "broker_url", "redis://h:6379/0"),
    ("BROKER_URL", "amqp://h//", "broker_url", "amqp://h//"),
    ("BIND", "[::1]:0", "host", "::1"),
    ("BIND", "localhost:80", "port", 80),
    ("TICK", "250ms", "tick_ms", 250),
    ("TICK", "2", "tick_ms", 2000),
    ("SLOTS", "7", "slots", 7),
    ("MAX_CONCURRENT", "9", "max_concurrent", 9),
    ("AUTO_REGISTER", "off", "auto_register_executor", None),
    ("AUTO_REGISTER", "command", "auto_register_executor", "command"),
    ("ALLOW_UNAUTHENTICATED", "true", "allow_unauthenticated", True),
    ("LOG_FORMAT", "json", "log_format", "json"),
    ("LOG_LEVEL", "debug", "log_level", "debug"),
    ("SEAL_KEY", "/etc/seal.key", "seal_key", Path("/etc/seal.key")),
    ("ORIGIN", "audit.example.com/log", "origin", "audit.example.com/log"),
    ("CHECKPOINT_DIR", "/mnt/worm", "checkpoint_dir", Path("/mnt/worm")),
    ("CHECKPOINT_WEBHOOK", "https://h/c?t=1", "checkpoint_webhook", "https://h/c?t=1"),
    ("CHECKPOINT_WEBHOOK", "http://127.0.0.1:9/c", "checkpoint_webhook", "http://127.0.0.1:9/c"),
]


@pytest.mark.parametrize(("name", "value", "field", "expected"), GOOD)
def test_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    assert getattr(load_settings(), field) == expected


BAD = [
    ("TICK", "soon"),
    ("TICK", "10ms"),
    ("TICK", "2m"),
    ("TICK", "-1s"),
    ("SLOTS", "0"),
    ("SLOTS", "many"),
    ("SLOTS", "1001"),
    ("MAX_CONCURRENT", "0"),
    ("BIND", "8321"),
    ("BIND", ":8321"),
    ("BIND", "localhost:http"),
    ("BIND", "localhost:65536"),
    ("BIND", "localhost:²"),
    ("BIND", "0.0.0.0:8321"),
    ("BROKER_URL", "carrier-pigeon://coop"),
    ("BROKER_URL", "localhost:6379"),
    ("ALLOW_UNAUTHENTICATED", "perhaps"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "loud"),
    ("ORIGIN", "two words"),
    ("ORIGIN", "a+b"),
    ("CHECKPOINT_WEBHOOK", "http://audit.example.com/c"),
    ("CHECKPOINT_WEBHOOK", "ftp://audit.example.com/c"),
    ("CHECKPOINT_WEBHOOK", "https://"),
    ("CHECKPOINT_WEBHOOK", "nonsense"),
    ("POLICY", "{"),
    ("POLICY", "[1]"),
    ("POLICY_QUIET", "soon"),
    ("POLICY_QUIET", "-1s"),
    ("POLICY_QUIET", "31d"),
    ("POLICY_MAX_WAIT", "0"),
    ("POLICY_LEASE", "0s"),
    ("POLICY_MAX_COUNT", "0"),
    ("POLICY_MAX_COUNT", "²"),
    ("POLICY_MAX_ATTEMPTS", "three"),
    ("POLICY_EDGE", "both"),
    ("POLICY_MODE", "dark"),
    ("POLICY_QUITE", "2s"),
    ("POLICY_VERSION", "3"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_each_bad_value_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    with pytest.raises(InvalidInput) as raised:
        load_settings()
    text = str(raised.value)
    assert "\n" not in text
    assert name.lower().removeprefix("policy_") in text.lower()


@pytest.mark.parametrize("name", ["POLICY_QUIET", "POLICY_QUITE", "POLICY_MAX_COUNT"])
def test_a_policy_number_is_named_as_its_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", "soon")
    with pytest.raises(InvalidInput, match=f"^ORCHESTRATOR_{name}: "):
        load_settings()


def test_bad_ones_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SLOTS", "0")
    monkeypatch.setenv("ORCHESTRATOR_LOG_LEVEL", "loud")
    with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_SLOTS: .*; ORCHESTRATOR_LOG_LEVEL: "):
        load_settings()


def test_a_refused_value_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", "rediss+odd://:hunter2@h/0")
    with pytest.raises(InvalidInput) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)


def test_beyond_loopback_only_under_named_hosts_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="ORCHESTRATOR_ALLOWED_HOSTS"):
        load_settings(bind="0.0.0.0:8321", allow_unauthenticated=True)
    monkeypatch.setenv("ORCHESTRATOR_ALLOWED_HOSTS", "Restarts.example.com, *.lan:8321,[::1]")
    settings = load_settings(bind="0.0.0.0:8321", allow_unauthenticated=True)
    assert (settings.host, settings.is_closed) == ("0.0.0.0", False)  # noqa: S104 (nothing is bound)
    assert settings.allowed_host_names == ["restarts.example.com", "*.lan:8321", "[::1]"]
    assert load_settings(bind="0.0.0.0:8321").is_closed


@pytest.mark.parametrize("hosts", ["", "a,,b", "http://a", "a/b", "*", "a b", "a:b", "*.*.a"])
def test_what_is_no_host_is_refused(hosts: str) -> None:
    with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_ALLOWED_HOSTS: .* is no host"):
        load_settings(allowed_hosts=hosts)


def test_a_file_and_what_wins_over_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('slots = 3\ntick = "2s"\nbroker_url = "redis://file/0"\n[policy]\nquiet = "9s"\nmax_wait = 30\n')
    monkeypatch.setenv("ORCHESTRATOR_TICK", "3s")
    monkeypatch.setenv("ORCHESTRATOR_BROKER_URL", "redis://environment/0")
    monkeypatch.setenv("ORCHESTRATOR_POLICY_QUIET", "8s")
    settings = load_settings(broker_url="redis://argument/0", slots=None)
    assert (settings.slots, settings.tick_ms, settings.broker_url) == (3, 3000, "redis://argument/0")
    assert (settings.floor.quiet_ms, settings.floor.max_wait_ms) == (8_000, 30_000)
    given = load_settings(policy={"quiet": "7s"})
    assert (given.floor.quiet_ms, given.floor.max_wait_ms) == (7_000, 30_000)


def test_a_number_of_seconds_in_the_file(config: Path) -> None:
    config.write_text("tick = 2\n")
    assert load_settings().tick_ms == 2000


def test_a_home_in_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    config.write_text('data = "~/restarts"\n')
    assert load_settings().data == Path("/home/ann/restarts")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("slotz = 3\n", "slotz is no setting of the file; did you mean slots"),
        ('orchestrator_database_url = "x"\n', "did you mean database_url"),
        ("[policy]\nquite = '2s'\n", "quite"),
        ("slots = \n", "orchestrator.toml"),
        ("policy = 3\n", "policy"),
        ("tick = true\n", "tick"),
    ],
)
def test_a_bad_file_is_one_line(config: Path, text: str, named: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidInput, match=f"(?i){named}") as raised:
        load_settings()
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(config: Path) -> None:
    config.unlink()
    with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_CONFIG.*orchestrator\.toml"):
        load_settings()


def test_a_file_that_cannot_be_read(config: Path) -> None:
    config.unlink()
    config.mkdir()
    with pytest.raises(InvalidInput, match="ORCHESTRATOR_CONFIG"):
        load_settings()


def test_the_whole_floor() -> None:
    settings = load_settings(
        {
            "ORCHESTRATOR_POLICY_QUIET": "2s",
            "ORCHESTRATOR_POLICY_MAX_WAIT": "1m30s",
            "ORCHESTRATOR_POLICY_MAX_COUNT": "17",
            "ORCHESTRATOR_POLICY_EDGE": "leading",
            "ORCHESTRATOR_POLICY_MIN_INTERVAL": "0",
            "ORCHESTRATOR_POLICY_MODE": "shadow",
            "ORCHESTRATOR_POLICY_MAX_ATTEMPTS": "5",
            "ORCHESTRATOR_POLICY_MAX_CONCURRENT": "6",
        }
    )
    floor = settings.floor
    assert (floor.quiet_ms, floor.max_wait_ms, floor.max_count, floor.min_interval_ms) == (2_000, 90_000, 17, 0)
    assert (floor.edge, floor.mode, floor.max_attempts, floor.max_concurrent) == (Edge.LEADING, Mode.SHADOW, 5, 6)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().slots = 3


@pytest.mark.parametrize(("tick", "lease", "least"), [("1s", "2999ms", "3s"), ("11s", "30s", "33s")])
def test_a_lease_shorter_than_three_ticks_is_refused_with_the_least_that_works(
    monkeypatch: pytest.MonkeyPatch, tick: str, lease: str, least: str
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_TICK", tick)
    monkeypatch.setenv("ORCHESTRATOR_POLICY_LEASE", lease)
    with pytest.raises(InvalidInput, match=rf"ORCHESTRATOR_POLICY_LEASE: .* is shorter than 3 ticks; give {least} or"):
        load_settings()


def test_a_lease_of_three_ticks_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_POLICY_LEASE", "3s")
    assert load_settings().floor.lease_ms == 3_000


def test_a_commit_waits_a_tenth_of_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().commit_wait_ms == 0
    monkeypatch.setenv("ORCHESTRATOR_COMMIT_WAIT", "5ms")
    assert load_settings().commit_wait_ms == 5
    monkeypatch.setenv("ORCHESTRATOR_COMMIT_WAIT", "101ms")
    with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_COMMIT_WAIT: .* at most 100ms"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DATABSE_URL", "DATABASE_URL"),
        ("SEALKEY", "SEAL_KEY"),
        ("BROKER_URI", "BROKER_URL"),
        ("MAX_CONCURENT", "MAX_CONCURRENT"),
        ("ORCHESTRATOR_TICK", "TICK"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", "hunter2")
    with pytest.raises(InvalidInput) as raised:
        load_settings()
    assert str(raised.value) == (f"ORCHESTRATOR_{name} is no setting; did you mean ORCHESTRATOR_{near}? Else unset it")


def test_a_name_that_is_near_to_nothing_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_XYZZY", "1")
    with pytest.raises(InvalidInput, match="ORCHESTRATOR_XYZZY is no setting; correct or unset it"):
        load_settings()


@pytest.mark.parametrize(
    "name",
    [
        *("WORKSPACE", "RESTART", "CYCLE", "FENCE", "REASON", "KIND", "CHILD"),
        *("PORT", "PORT_8321_TCP", "PORT_8321_TCP_ADDR", "API_PORT", "API_PORT_8321_TCP_PORT"),
        *("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "API_SERVICE_HOST", "API_SERVICE_PORT_METRICS"),
    ],
)
def test_what_we_hand_on_and_kubernetes_service_links_are_let_through(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", "tcp://10.0.0.1:8321")
    load_settings()


def test_an_unnamed_database_is_no_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_DATABASE_URL is not set.*postgresql://"):
        load_settings().require_named_database()
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", " ")
    with pytest.raises(InvalidInput, match="ORCHESTRATOR_DATABASE_URL: is empty"):
        load_settings()
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://h/db")
    load_settings().require_named_database()


def test_a_password_of_its_own_needs_no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    password = "a@b:c/d?e#f%20 g"
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql+psycopg://ann@db:5432/x?sslmode=require")
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_PASSWORD", password)
    settings = load_settings()
    url = database_url(settings.url)
    assert (url.username, url.password, url.host, url.port, url.database) == ("ann", password, "db", 5432, "x")
    assert database_name(settings.url) == "postgresql+psycopg://ann@db:5432/x"
    assert password not in repr(settings)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql://ann:other@db/x")
    with pytest.raises(InvalidInput, match="ORCHESTRATOR_DATABASE_PASSWORD is for a"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://owner:aa@bb:Zebra/cc@127.0.0.1:1/x",
        "postgresql://owner:Zebra@bb@127.0.0.1/x",
        "postgresql://owner:a@Zebra/b@127.0.0.1/x",
        "postgresql://owner:a@Zebra?b@127.0.0.1/x",
        "postgresql://owner:a@127.0.0.1:Zebra/x",
        "owner:Zebra@127.0.0.1/x",
        "Zebra",
        "",
    ],
)
def test_a_database_url_that_is_mistyped_is_one_line_without_any_part_of_it(url: str) -> None:
    for read in (database_url, database_name):
        with pytest.raises(InvalidInput, match=r"ORCHESTRATOR_DATABASE_URL.*percent-encoded") as raised:
            read(url)
        assert "Zebra" not in str(raised.value)
        assert raised.value.__cause__ is None
    with pytest.raises(SourceUnavailable) as unread:
        Database(url)
    assert "Zebra" not in str(unread.value)
