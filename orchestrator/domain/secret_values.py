"""What in a target looks like a secret. Targets are kept in the log for ever and shown to all who may read it.

So a secret stands there as a reference, ``{"env": NAME}`` or ``{"file": PATH}``, which the worker resolves when it
acts; a plain value that looks like one is refused where it comes in, and masked where an older one is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

MASK = "***"
HOW_TO_WRITE = 'write {"env": NAME} or {"file": PATH}, which the worker reads when it acts'

_REFERENCES = ("env", "file")

_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|PRIVATE_?KEY|API_?KEY|ACCESS_?KEY|AUTH_?KEY"
    r"|TOKENS?(?=_|$|\d)|(?:^|_)(?:PASS|PWD|AUTH|AUTHORIZATION|COOKIE|DSN|BEARER|JWT)(?=_|$|\d)"
)
_TELLS_ABOUT = re.compile(
    r"(?:^PWD|_(?:FILE|PATH|DIR|NAME|ID|TTL|TIMEOUT|EXPIRY|EXPIRES|LENGTH|HEADER|TYPE|ALGORITHM|SERVICE|METHOD|MODE))$"
)
"""A name that ends so is about a secret, and holds none."""

_TOKENS = (
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}",
    r"gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{15,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|sk-[A-Za-z0-9_-]{20,}|whsec_[A-Za-z0-9+/=]{16,}",
    r"AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}",
    r"hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|dckr_pat_[A-Za-z0-9_-]{20,}",
    r"ro_[A-Za-z0-9_-]{20,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
)
_TOKEN = re.compile(rf"(?<![A-Za-z0-9_-])(?:{'|'.join(_TOKENS)})|PRIVATE KEY-----")
_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@]*:(?!\$)[^\s/?#@]+@")
_HEADER = re.compile(r"(?i)\b(?:bearer|basic|token)\s+(?![$<{\"'])[A-Za-z0-9+/_.~=-]{8,}")
_ASSIGNED = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z0-9_-]*)\s*[=:]\s*(?=([^\s&;,]+))")
_OPTION = re.compile(r"--?([A-Za-z][A-Za-z0-9_-]*)")
_SHORTEST_SECRET = 4
"""What is shorter is found everywhere, and is no secret."""

_NO_VALUE = re.compile(r"[\"'{]*(?:\$|\*\*\*|<|$)|(?i:true|false|yes|no|on|off|none|null|[0-9]{1,3})[\"']?$")
"""What stands for a value or says nothing: a shell's variable, a placeholder, a switch."""


def is_reference(value: object) -> bool:
    """Return whether a value is ``{"env": NAME}`` or ``{"file": PATH}``."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    [(kind, name)] = value.items()
    return kind in _REFERENCES and isinstance(name, str) and bool(name)


def references_in(target: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return every reference of a target, wherever it stands: (``env`` or ``file``, the name)."""
    return list(_references(target, ""))


def words_to_hide(values: Iterable[str]) -> Sequence[str]:
    """Return what ``hide`` looks for: the values and each of their lines, as they are and as Python escapes them."""
    whole = [line.strip() for value in values for line in (value, *value.splitlines())]
    spelled = [form for line in whole for form in (line, repr(line)[1:-1], ascii(line)[1:-1])]
    return sorted({form for form in spelled if len(form) >= _SHORTEST_SECRET}, key=lambda form: (-len(form), form))


def hide(text: str, words: Iterable[str]) -> str:
    """Return text with ``***`` in place of each of ``words_to_hide``."""
    for word in words:
        text = text.replace(word, MASK)
    return text


def looks_secret(name: str, value: str) -> bool:
    """Return whether text under that name (a variable, a field; "" for none) looks like a secret."""
    if is_secret_name(name) and not _NO_VALUE.match(value):
        return True
    if value == MASK or _TOKEN.search(value) or _IN_URL.search(value) or _HEADER.search(value):
        return True
    return any(is_secret_name(found[1]) and not _NO_VALUE.match(found[2]) for found in _ASSIGNED.finditer(value))


def is_secret_name(name: str) -> bool:
    """Return whether what has that name is a secret: ``API_TOKEN``, ``dbPassword``, ``x-api-key``."""
    spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").upper()
    return _SECRET_NAME.search(spelled) is not None and _TELLS_ABOUT.search(spelled) is None


def secrets_in(target: Mapping[str, Any]) -> list[str]:
    """Return the fields of a target that hold what looks like a secret, as ``env.API_TOKEN`` or ``argv[2]``."""
    return [path for path, text, before in _texts(target) if _is_secret(path, text, before)]


def masked(target: Mapping[str, Any]) -> dict[str, Any]:
    """Return a target to be shown: every text in it that looks like a secret is ``***``. References stay."""
    hidden = frozenset(secrets_in(target))
    return _masked(target, "", hidden) if hidden else dict(target)


def _is_secret(path: str, text: str, before: str) -> bool:
    name = "" if path.endswith("]") else path.rpartition(".")[2]
    if looks_secret(name, text):
        return True
    option = _OPTION.fullmatch(before)
    return option is not None and is_secret_name(option[1]) and not text.startswith("-") and not _NO_VALUE.match(text)


def _texts(value: object, path: str = "", before: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, text and, inside a list, the text before it."""
    if isinstance(value, str):
        yield path, value, before
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            field = f"{path}.{name}" if path else str(name)
            if not is_reference(inner) or field == "env":  # `env` itself is the variables, also where there is one
                yield from _texts(inner, field)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            earlier = value[index - 1] if index else ""
            yield from _texts(inner, f"{path}[{index}]", earlier if isinstance(earlier, str) else "")


def _references(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if is_reference(value) and path != "env":
            yield next(iter(value.items()))
            return
        for name, inner in value.items():
            yield from _references(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner, f"{path}[]")


def _masked(value: Any, path: str, hidden: frozenset[str]) -> Any:
    if path in hidden:
        return MASK
    if isinstance(value, Mapping):
        return {name: _masked(inner, f"{path}.{name}" if path else str(name), hidden) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, f"{path}[{index}]", hidden) for index, inner in enumerate(value)]
    return value
