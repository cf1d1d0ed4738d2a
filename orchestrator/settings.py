"""Settings: environment variables ``ORCHESTRATOR_*``, then the TOML file ``ORCHESTRATOR_CONFIG``, then defaults.

Read once at start, frozen, validated together: a process that starts has good settings.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from kombu.transport import TRANSPORT_ALIASES
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from orchestrator.domain.durations import parse_duration
from orchestrator.domain.policy import Policy, check_lease, parse_policy, said_by
from orchestrator.errors import InvalidInput

_PREFIX = "ORCHESTRATOR_"
_POLICY_PREFIX = f"{_PREFIX}POLICY_"
_HOST = re.compile(r"((\*\.)?[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")
_BESIDE = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        *("CONFIG", "URL", "KEY", "KEY_FILE", "CRASH_AT"),
        # What we hand to what we start, us perhaps:
        *("WORKSPACE", "RESTART", "CYCLE", "FENCE", "REASON", "KIND", "CHILD"),
    )
)
"""Names that are no settings of a process and may be in its environment."""
_SERVICE_LINK = re.compile(r"_PORT(_|$)|_SERVICE_(HOST|PORT)(_|$)")
"""What Kubernetes adds for a Service that is called `orchestrator` or `orchestrator-...`."""
_OFF = Path("off")
_WHOLE_NUMBERS = frozenset(f"{_POLICY_PREFIX}{name}" for name in ("MAX_COUNT", "MAX_ATTEMPTS", "MAX_CONCURRENT"))

_COMMIT_WAITS_MOST_MS = 100


def default_data_folder() -> Path:
    """Return ``$XDG_STATE_HOME`` or ``~/.local/state``, + ``/restart-orchestrator`` (CONTRACT section 6)."""
    state_home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state_home) / "restart-orchestrator"


class Settings(BaseSettings):
    """Everything a process needs to know before it starts. Durations are milliseconds in ``_ms`` properties."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    data: Path = Field(default_factory=default_data_folder, description="Folder of the embedded mode")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; none: SQLite in the data folder")
    database_password: SecretStr | None = Field(
        default=None, description="Password of DATABASE_URL, as it is: what stands in a URL must be percent-encoded"
    )
    app_role: str | None = Field(default=None, description="PostgreSQL role of api, worker, beat; `migrate` grants")
    reader_role: str | None = Field(default=None, description="PostgreSQL role that only reads; `migrate` grants")
    broker_url: str = Field(default="memory://", description="Celery broker")
    bind: str = Field(default="127.0.0.1:8321", description="HOST:PORT of the API")
    tick: str = Field(default="1s", description="How often the coalescer looks")
    commit_wait: str = Field(default="0s", description="How long a commit waits for company, up to 100ms")
    commands_dir: Path | None = Field(
        default=None, description="Folder of the records of `worker`'s running commands; none: one of this user's"
    )
    slots: int | None = Field(default=None, ge=1, le=1000, description="Cycles at once in a worker: 4 embedded, 16")
    executors: str | None = Field(default=None, description="Executors a worker serves, like a,b; none: all it has")
    pools: str | None = Field(default=None, description="Pools a worker serves, like a,b; none: its host, default")
    max_concurrent: int | None = Field(default=None, ge=1, description="Cycles at once, over all workers")
    auto_register: str | None = Field(
        default=None, description="Executor of workspaces met first in a write, or off; embedded: simulated"
    )
    allowed_hosts: str | None = Field(default=None, description="Values of Host, like a,b; none: loopback names")
    allow_unauthenticated: bool = Field(default=False, description="Answer beyond loopback without keys")
    loopback: str = Field(default="open", pattern="^(open|closed)$", description="closed: a key for everything")
    owner_key: Path | None = Field(default=None, description="File of the owner's key; up makes one")
    seal_key: Path | None = Field(
        default=None, description="File of the keys that sign checkpoints, or off; up makes one"
    )
    origin: str | None = Field(default=None, description="The log's name in its checkpoints; none: that of its key")
    checkpoint_dir: Path | None = Field(default=None, description="Folder that checkpoints are exported to")
    checkpoint_webhook: str | None = Field(default=None, description="URL that checkpoints are posted to")
    log_format: str = Field(default="auto", pattern="^(auto|console|json)$", description="auto: console on a terminal")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    policy: dict[str, Any] = Field(default_factory=dict, description="The floor's numbers that differ")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then the TOML file."""
        config = os.environ.get(f"{_PREFIX}CONFIG")
        toml = [_read_config(settings_cls, Path(config))] if config else []
        return (init_settings, env_settings, *toml)

    @field_validator("data", "seal_key", "owner_key", "checkpoint_dir", "commands_dir")
    @classmethod
    def _expand_home(cls, value: Path | None) -> Path | None:
        return value if value is None else value.expanduser()

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; name a database like postgresql://USER@HOST/NAME, or unset the variable")
        return value

    @field_validator("origin")
    @classmethod
    def _check_origin(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[!-*,-~]{1,200}", value):
            raise ValueError("origin must be printable ASCII without spaces and '+', like audit.example.com/log")
        return value

    @field_validator("checkpoint_webhook")
    @classmethod
    def _check_webhook(cls, value: str | None) -> str | None:
        if value is not None:
            _require_webhook(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, value: str) -> str:
        schemes = {url.partition("://")[0] for url in value.split(";") if "://" in url}
        if not schemes or schemes - set(TRANSPORT_ALIASES):
            raise ValueError("broker_url must be like redis://HOST:6379/0, amqp://USER@HOST// or memory://")
        return value

    @field_validator("executors", "pools")
    @classmethod
    def _check_names(cls, value: str | None) -> str | None:
        for name in () if value is None else value.split(","):
            if not re.fullmatch(r"(?!-|\.{1,2}$)[A-Za-z0-9._:-]{1,128}", name.strip()):
                raise ValueError(f"{name!r} is no name; write names with commas between them, like a,b")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: str | None) -> str | None:
        for host in () if value is None else value.split(","):
            if not _HOST.fullmatch(host.strip()):
                raise ValueError(
                    f"{host.strip()!r} is no host; write names and addresses with commas between them, with a port or "
                    "without, and *.example.com for every name below: restarts.example.com,10.0.0.5,[::1]:8321"
                )
        return value

    @field_validator("tick", "commit_wait", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """Take a number of seconds, which TOML has as a number."""
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("tick")
    @classmethod
    def _check_tick(cls, value: str) -> str:
        if not 50 <= parse_duration(value, field="tick") <= 60_000:
            raise ValueError("tick must be between 50ms and 1m")
        return value

    @field_validator("commit_wait")
    @classmethod
    def _check_commit_wait(cls, value: str) -> str:
        if parse_duration(value, field="commit_wait") > _COMMIT_WAITS_MOST_MS:
            raise ValueError(f"commit_wait must be at most {_COMMIT_WAITS_MOST_MS}ms: every write waits for it")
        return value

    @field_validator("bind")
    @classmethod
    def _check_bind(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if not separator or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
            raise ValueError("bind must be HOST:PORT, like 127.0.0.1:8321")
        return value

    @model_validator(mode="after")
    def _check_exposure(self) -> Settings:
        if not self.bind_is_loopback and self.allowed_hosts is None:
            raise ValueError(
                f"bind {self.bind} is not loopback: name the hosts under which it is called, so that a web page cannot "
                "use it under its own name, like ORCHESTRATOR_ALLOWED_HOSTS=restarts.example.com,localhost"
            )
        return self

    @property
    def host(self) -> str:
        """Return the host to bind to, an IPv6 address without its brackets."""
        return self.bind.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Return the port to bind to; 0 takes a free one."""
        return int(self.bind.rpartition(":")[2])

    @property
    def bind_is_loopback(self) -> bool:
        """True if only this machine can reach the API."""
        return _is_loopback(self.host)

    @property
    def allowed_host_names(self) -> list[str] | None:
        """Return the values of ``Host`` that are accepted, in small letters; None: those of loopback."""
        return None if self.allowed_hosts is None else [host.strip().lower() for host in self.allowed_hosts.split(",")]

    @property
    def is_closed(self) -> bool:
        """True if the API answers nobody without a key."""
        return self.loopback == "closed" or not (self.bind_is_loopback or self.allow_unauthenticated)

    @property
    def executor_names(self) -> list[str] | None:
        """Return the executors that a worker serves; None: all that it has."""
        return None if self.executors is None else [name.strip() for name in self.executors.split(",")]

    @property
    def pool_names(self) -> list[str] | None:
        """Return the pools that a worker serves; None: its host's name and ``default``."""
        return None if self.pools is None else [name.strip() for name in self.pools.split(",")]

    @property
    def tick_ms(self) -> int:
        """Return the tick in milliseconds."""
        return parse_duration(self.tick, field="tick")

    @property
    def commit_wait_ms(self) -> int:
        """Return how long a commit waits for company, in milliseconds."""
        return parse_duration(self.commit_wait, field="commit_wait")

    @property
    def url(self) -> str:
        """Return the database's URL; SQLite in the data folder if none is set."""
        named = self.database_url or f"sqlite:///{self.data / 'orchestrator.db'}"
        if self.database_password is None or self.database_url is None:
            return named
        login = re.fullmatch(r"(\w+(?:\+\w+)?://[^:/@?#]+)(@.*)", named)
        if login is None:
            raise InvalidInput(
                f"{_PREFIX}DATABASE_PASSWORD is for a database URL ({_PREFIX}DATABASE_URL) that names a user and"
                " no password, like postgresql://USER@HOST/NAME; unset one of the two"
            )
        return f"{login[1]}:{quote(self.database_password.get_secret_value(), safe='')}{login[2]}"

    def require_named_database(self) -> None:
        """Raise ``InvalidInput`` unless somebody said which database: processes that share none must not guess one."""
        if self.database_url is None:
            raise InvalidInput(
                f"{_PREFIX}DATABASE_URL is not set, and separate processes must share one database; set it to"
                " postgresql://USER@HOST/NAME, or use `orchestrator up`, which has its own in one process"
            )

    @property
    def sealing_declined(self) -> bool:
        """True where somebody said that the log is not to be sealed: ``ORCHESTRATOR_SEAL_KEY=off``."""
        return self.seal_key == _OFF

    def sealing_in_data_folder(self) -> Settings:
        """Return these settings with the key and the checkpoints of `up`, where none are named."""
        return self.model_copy(
            update={
                "seal_key": self.seal_key or self.data / "seal.key",
                "checkpoint_dir": self.checkpoint_dir or self.data / "checkpoints",
            }
        )

    @property
    def auto_register_executor(self) -> str | None:
        """Return the executor of workspaces that a first write registers; None if that is off."""
        return None if self.auto_register in (None, "off") else self.auto_register

    @property
    def floor(self) -> Policy:
        """Return the built-in numbers, overridden by settings."""
        try:
            floor = Policy(**said_by(parse_policy(self.policy)))
            check_lease(floor.lease_ms, tick_ms=self.tick_ms)
        except InvalidInput as error:
            # `policy.quiet` is the name in a request's body; the person who set this wrote a variable or an option.
            said = re.sub(r"^policy\.(\w+)", lambda name: _POLICY_PREFIX + name[1].upper(), str(error))
            raise InvalidInput(said) from None
        return floor


def load_settings(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Return the settings of this process; ``given`` (a command's options) wins where it is not None.

    Raises ``InvalidInput`` with one line that names what is wrong; a name that is no setting is wrong too.
    """
    found = os.environ if environment is None else environment
    _refuse_unknown(found)
    policy: dict[str, Any] = {
        name.removeprefix(_POLICY_PREFIX).lower(): _whole(value) if name in _WHOLE_NUMBERS else value
        for name, value in found.items()
        if name.startswith(_POLICY_PREFIX)
    }
    values = {name: value for name, value in given.items() if value is not None}
    merged = {**policy, **values.pop("policy", {})}
    try:
        settings = Settings(**values)
        settings = settings.model_copy(update={"policy": {**settings.policy, **merged}})
        _ = settings.floor, settings.url
    except ValidationError as error:
        raise InvalidInput(_one_line(error)) from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"settings: {error}") from None
    return settings


def setting_names() -> list[str]:
    """Return the names of all settings, as variables."""
    return [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """Raise ``InvalidInput`` for a variable that nobody would read: its value was meant for something."""
    known = {*setting_names(), *_BESIDE}
    for name in sorted(environment):
        strange = name.upper() not in known and not name.startswith(_POLICY_PREFIX)
        if name.startswith(_PREFIX) and strange and not _SERVICE_LINK.search(name):
            near = _nearest(name)
            raise InvalidInput(f"{name} is no setting; {_instead(near and _PREFIX + near)}")


def _nearest(name: str) -> str | None:
    """Return the setting, without its prefix, that a name may have been meant for."""
    meant = name.upper()
    while meant.startswith(_PREFIX):
        meant = meant.removeprefix(_PREFIX)
    found = difflib.get_close_matches(meant, [field.upper() for field in Settings.model_fields], n=1, cutoff=0.75)
    return found[0] if found else None


def _instead(near: str | None) -> str:
    return f"did you mean {near}? Else unset it" if near else "correct or unset it"


def _require_webhook(value: str) -> None:
    """Raise ``ValueError`` unless checkpoints can be sent there unread by others."""
    try:
        url = httpx2.URL(value)
    except httpx2.InvalidURL as error:
        raise ValueError(f"checkpoint_webhook is no URL: {error}") from None
    if not url.host or url.scheme not in ("http", "https"):
        raise ValueError("checkpoint_webhook must be an https URL, like https://audit.example.com/checkpoints")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise ValueError("checkpoint_webhook must be https: plain http is for this machine only")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _whole(value: str) -> int | str:
    """Return the number that a variable spells; anything else stays as it is, to be refused by name."""
    return int(value) if value.isascii() and value.isdigit() else value


def _read_config(settings_cls: type[BaseSettings], path: Path) -> TomlConfigSettingsSource:
    """Return the file as a source. Raises ``InvalidInput`` where it is missing, unreadable or no TOML."""
    try:
        if not path.is_file():
            raise InvalidInput(f"{_PREFIX}CONFIG: there is no file {path}; correct the path, or unset the variable")
        return TomlConfigSettingsSource(settings_cls, path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{_PREFIX}CONFIG: {path} cannot be read: {error}") from error


def _one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = _nearest(name)
            parts.append(f"{name} is no setting of the file; {_instead(near and near.lower())}")
            continue
        where = f"{_PREFIX}{name.upper()}: " if name else ""
        parts.append(where + problem["msg"].removeprefix("Value error, "))
    return "; ".join(parts)
