"""docker-compose.yml and Dockerfile, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.storage.migrate import upgrade
from orchestrator.storage.opening import open_store
from orchestrator.storage.privileges import Roles
from tests.servers.postgres import SUPERUSER, PostgresServer, as_login
from tests.servers.process import LOOPBACK
from tests.servers.redis import RedisServer

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name not in ("postgres", "redis")}
ONCE = {"migrate", "seal-key"}
LASTING = sorted(SERVICES.keys() - ONCE)
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCESSES = {"api", "worker", "beat", "migrate"}  # CONTRACT section 6
SETTINGS = {  # CONTRACT sections 6 and 8
    "ORCHESTRATOR_DATABASE_URL",
    "ORCHESTRATOR_DATABASE_PASSWORD",
    "ORCHESTRATOR_SEAL_KEY",
    "ORCHESTRATOR_CHECKPOINT_DIR",
    "ORCHESTRATOR_BROKER_URL",
    "ORCHESTRATOR_BIND",
    "ORCHESTRATOR_ALLOW_UNAUTHENTICATED",
    "ORCHESTRATOR_ALLOWED_HOSTS",
    "ORCHESTRATOR_AUTO_REGISTER",
    "ORCHESTRATOR_APP_ROLE",
}


def health_check(service: str, of: str, to: str) -> list[str]:
    """Return the check's command line as it would run here, with its fixed port exchanged."""
    marker, python, flag, script = SERVICES[service]["healthcheck"]["test"]
    assert (marker, python, flag) == ("CMD", "python", "-c")
    assert of in script
    return [sys.executable, "-c", script.replace(of, to)]


def exit_code(command: list[str]) -> int:
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode


def test_every_process_of_the_product_runs_by_its_own_command() -> None:
    commands = {name: service["command"] for name, service in OURS.items() if name != "seal-key"}
    assert commands == {name: [name] for name in PROCESSES}
    assert {setting for service in OURS.values() for setting in service["environment"]} == SETTINGS


def test_one_image_is_built_once_for_all() -> None:
    assert len({service["image"] for service in OURS.values()}) == 1
    assert [name for name, service in OURS.items() if "build" in service] == ["migrate"]
    assert {service["pull_policy"] for name, service in OURS.items() if name != "migrate"} == {"never"}


@pytest.mark.parametrize("name", LASTING)
def test_lasting_service_is_checked_and_restarted(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["api", "beat", "worker"])
def test_nothing_starts_before_the_migrations_are_done(name: str) -> None:
    assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["restart"] == "no"


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:${API_PORT:-8321}:8321"]}
    assert SERVICES["api"]["environment"]["ORCHESTRATOR_ALLOWED_HOSTS"] == "localhost,127.0.0.1,api"


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_cannot_write_their_image_and_are_bounded(name: str) -> None:
    service = SERVICES[name]
    assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])  # noqa: S108
    assert {"mem_limit", "pids_limit"} <= service.keys()
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_only_migrate_connects_as_the_owner_and_no_url_holds_a_password() -> None:
    database, app = SERVICES["postgres"]["environment"], OURS["migrate"]["environment"]["ORCHESTRATOR_APP_ROLE"]
    for name, service in OURS.items():
        given = service["environment"]
        user, password = (database["POSTGRES_USER"], database["POSTGRES_PASSWORD"])
        if name != "migrate":
            user, password = app, database["ORCHESTRATOR_APP_PASSWORD"]
        assert given["ORCHESTRATOR_DATABASE_URL"] == f"postgresql+psycopg://{user}@postgres:5432/orchestrator"
        assert given["ORCHESTRATOR_DATABASE_PASSWORD"] == password
    assert database["ORCHESTRATOR_APP_PASSWORD"] == "${APP_PASSWORD:-orchestrator_app}"
    assert database["POSTGRES_PASSWORD"] == "${POSTGRES_PASSWORD:-orchestrator}"


def test_a_seal_key_is_made_once_and_the_worker_has_it() -> None:
    *verb, file = SERVICES["seal-key"]["command"]
    worker = SERVICES["worker"]["environment"]
    assert worker["ORCHESTRATOR_SEAL_KEY"] == file
    folder = Path(file).parent
    assert Path(worker["ORCHESTRATOR_CHECKPOINT_DIR"]).parent == folder
    assert SERVICES["worker"]["volumes"] == SERVICES["seal-key"]["volumes"] == [f"kept:{folder}"]
    assert f"--home-dir {folder} " in DOCKERFILE
    assert f"chmod 0700 {folder}\n" in DOCKERFILE  # a new volume is made like it
    assert SERVICES["worker"]["depends_on"]["seal-key"] == {"condition": "service_completed_successfully"}
    assert verb == ["audit", "keys", "new", "--if-missing"]


def test_the_app_login_of_a_new_volume_can_be_granted_to(
    postgres_server: PostgresServer, postgres_programs: Path
) -> None:
    script = "docker/app-login.sql"
    assert f"./{script}:/docker-entrypoint-initdb.d/app-login.sql:ro" in SERVICES["postgres"]["volumes"]
    name = postgres_server.create_database()
    psql = [str(postgres_programs / "psql"), "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc"]
    where = ["-h", LOOPBACK, "-p", str(postgres_server.port), "-U", SUPERUSER, "-d", name]
    environment = {**os.environ, "ORCHESTRATOR_APP_PASSWORD": 'it\'s a "secret"'}
    subprocess.run(
        [*psql, *where, "-f", str(ROOT / script)], env=environment, capture_output=True, timeout=20, check=True
    )
    app = OURS["migrate"]["environment"]["ORCHESTRATOR_APP_ROLE"]
    upgrade(postgres_server.url(name), Roles(app=app))
    store = open_store(as_login(postgres_server.url(name), app))
    store.ticked()
    store.close()
    with postgres_server.connect(name) as connection:
        kept = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (app,)).fetchone()
        connection.execute(f"DROP OWNED BY {app}; DROP ROLE {app}")
    assert kept is not None
    assert kept[0].startswith("SCRAM-SHA-256$")
    postgres_server.drop_database(name)


def test_redis_keeps_its_queues_and_evicts_none() -> None:
    command = SERVICES["redis"]["command"]
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
        "--protected-mode": "no",  # a server without a password refuses other containers otherwise
    }


@pytest.mark.parametrize("name", ["beat", "worker"])
def test_process_is_healthy_while_connected_to_the_broker(name: str, redis_server: RedisServer) -> None:
    check = health_check(name, of="6379", to=str(redis_server.port))
    with redis.Redis.from_url(redis_server.url) as client:
        client.ping()
        assert exit_code(check) == 0
    redis_server.stop()
    assert exit_code(check) == 1


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_api_is_healthy_while_ready(status: int, healthy: bool) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        code = exit_code(health_check("api", of="8321", to=str(server.server_port)))
        server.shutdown()
        thread.join()
    assert (code == 0) is healthy


def test_image_runs_the_product_without_root_and_without_the_dev_group() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["orchestrator"]' in final
    assert "--group" not in DOCKERFILE


def test_all_that_the_image_copies_is_there_and_sent_to_the_engine() -> None:
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert sorted(sources) == sorted(let_through)
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_every_dependency_of_the_image_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    pins = dict(line.split("==") for line in lines)
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    assert "pip install --constraint constraints.txt ." in DOCKERFILE
    for needs in needed_by("restart-orchestrator"):
        pinned = pins[canonicalize_name(needs.name)]
        assert needs.specifier.contains(pinned), f"{needs}: {pinned}"


def needed_by(name: str) -> list[Requirement]:
    """Return all that a distribution needs here, and all that those need."""
    found: dict[str, Requirement] = {}
    todo = [Requirement(name)]
    while todo:
        asked = todo.pop()
        for requirement in map(Requirement, distribution(asked.name).requires or ()):
            extras = ("", *asked.extras)
            if requirement.marker is not None and not any(requirement.marker.evaluate({"extra": e}) for e in extras):
                continue
            if str(requirement) not in found:
                found[str(requirement)] = requirement
                todo.append(requirement)
    return list(found.values())
