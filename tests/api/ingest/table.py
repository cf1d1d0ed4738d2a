"""What was asked of the two ways in for writes, good and bad: one request for every branch, and many damaged ones.

The requests go to one database, one after the other, so that some stand on those before.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from tests.api.ingest.asking import GONE, NEVER_ENDS, Headers, Request
from tests.fuzz.seeds import seed

ONE = "/v1/workspaces/ws/writes"
MANY = "/v1/writes"
JSON = (b"content-type", b"application/json")
NDJSON = (b"content-type", b"application/x-ndjson")
HOST = (b"host", b"127.0.0.1:8321")
DAMAGED = 160
"""Requests with a body that is nearly good, of each kind."""


def one(body: bytes | Mapping[str, Any], *more: tuple[bytes, bytes], target: str = ONE) -> Request:
    return sent(body, (JSON, *more), target)


def many(body: bytes | list[Any], *more: tuple[bytes, bytes]) -> Request:
    return sent(body, (JSON, *more), MANY)


def lines(body: bytes, *more: tuple[bytes, bytes]) -> Request:
    return sent(body, (NDJSON, *more), MANY)


def sent(body: object, headers: Headers, target: str) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request(target=target, headers=(HOST, *headers), body=(raw,))


def keyed(key: bytes) -> tuple[bytes, bytes]:
    return (b"idempotency-key", key)


def typed(kind: bytes, target: str = ONE) -> Request:
    return sent({"path": "a"}, ((b"content-type", kind),), target)


def _addresses() -> dict[str, Request]:
    good = {"path": "a"}
    targets = {
        "space in the id": "/v1/workspaces/a%20b/writes",
        "long id": f"/v1/workspaces/{'a' * 129}/writes",
        "longest id": f"/v1/workspaces/{'a' * 128}/writes",
        "newline after the id": "/v1/workspaces/ws%0A/writes",
        "id that is not UTF-8": "/v1/workspaces/%ff/writes",
        "id with a slash": "/v1/workspaces/a%2Fb/writes",
        "empty id": "/v1/workspaces//writes",
        "id with a question mark": "/v1/workspaces/a%3Fb/writes",
        "id with a hash": "/v1/workspaces/a%23b/writes",
        "id with a backslash": "/v1/workspaces/a%5Cb/writes",
        "id of every sign": "/v1/workspaces/A.z_0:9-/writes",
        "encoded id": "/v1/workspaces/%77s/writes",
        "unknown workspace": "/v1/workspaces/none/writes",
        "newline at the end": f"{ONE}%0A",
        "slash at the end": f"{ONE}/",
        "two slashes before": f"/{ONE}",
        "a query": f"{ONE}?wait=5",
        "version of no API": "/v2/writes",
    }
    found = {f"address: {name}": one(good, target=target) for name, target in targets.items()}
    batch = [{"workspace": "ws", "path": "a"}]
    found |= {
        f"address of a batch: {name}": sent(batch, (JSON,), target)
        for name, target in {"newline": f"{MANY}%0A", "slash": f"{MANY}/", "query": f"{MANY}?a=b&c"}.items()
    }
    for method in ("PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "post", "BREW"):
        found[f"method {method} for one"] = Request(method=method, target=ONE, headers=(HOST, JSON))
        found[f"method {method} for many"] = Request(method=method, target=MANY, headers=(HOST, JSON))
    for host in (b"evil.example", b"evil.example:8321", b"", b"[", b"localhost:1", b"[::1]:1", b"a b", b"\xff"):
        asked = Request(target=ONE, headers=((b"host", host), JSON), body=(b'{"path": "a"}',))
        found[f"host {host!r}"] = asked
    found["no host"] = Request(target=ONE, headers=(JSON,), body=(b'{"path": "a"}',))
    found["two hosts"] = one(good, (b"host", b"evil.example"))
    found["foreign host and a bad body"] = Request(target=ONE, headers=((b"host", b"evil.example"),), body=(b"{",))
    return found


def _heads() -> dict[str, Request]:
    kinds = [
        *(b"", b"text/plain", b"application/jsonx", b"application/JSON", b"application/json;charset=UTF-8"),
        *(b'application/json; charset="utf-8"', b"application/json; charset=latin-1", b"application/json;"),
        *(b"application/json; version=1", b" application/json ", b"application/json, text/plain", b"json", b"\xff"),
        *(b"application/x-ndjson", b"application/x-ndjson; charset=utf8", b"application/cloudevents+json"),
        *(b"application/x-www-form-urlencoded", b"application/json; charset*=utf-8''utf-8", b"application /json"),
    ]
    found = {f"type {kind!r} of one": typed(kind) for kind in kinds}
    found |= {f"type {kind!r} of many": typed(kind, MANY) for kind in kinds}
    found["no type of one"] = sent({"path": "a"}, (), ONE)
    found["no type of many"] = sent([], (), MANY)
    found["two types"] = one({"path": "a"}, (b"content-type", b"text/plain"))
    for coding in (b"gzip", b"identity", b"Identity", b"", b"gzip, identity"):
        found[f"coding {coding!r}"] = one({"path": "a"}, (b"content-encoding", coding))
    keys = [b"", b"k" * 255, b"k" * 256, b"a b", b"caf\xe9", b"!~", b"a\x7f"]
    found |= {f"key {key[:9]!r} of {len(key)}": one({"path": "a"}, keyed(key)) for key in keys}
    found["two keys"] = one({"path": "a"}, keyed(b"first"), keyed(b"a b"))
    found["bad key and bad type"] = sent(b"{}", (keyed(b""),), ONE)
    found["bad key and bad body"] = one(b"{", keyed(b"a b"))
    found["bad key and bad id"] = one(b"{}", keyed(b"a b"), target="/v1/workspaces/a%20b/writes")
    found["bad id and bad body"] = one(b"{", target="/v1/workspaces/a%20b/writes")
    found["bad id and no type"] = sent(b"{}", (), "/v1/workspaces/a%20b/writes")
    for number, trace in enumerate((b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-A-b-01", b"", b"\xff")):
        found[f"trace {number}"] = one({"path": f"trace-{number}"}, (b"traceparent", trace))
        found[f"trace {number} of many"] = many([{"workspace": "ws", "path": "t"}], (b"traceparent", trace))
    for name in (b"a b", b"", b"x" * 129, b"caf\xe9"):
        found[f"request id {name[:9]!r}"] = one({"path": "a"}, (b"x-request-id", name))
    return found


def _single_bodies() -> dict[str, bytes]:
    texts = {
        "nothing": b"",
        "blanks": b"  \n",
        "not an object": b"[]",
        "a text": b'"path"',
        "null": b"null",
        "cut": b'{"path": "a"',
        "two texts": b'{"path": "a"} {}',
        "comment": b'{"path": "a"} // x',
        "trailing comma": b'{"path": "a",}',
        "blanks around": b' \t\r\n{"path"\n:\t"a"} \n',
        "byte order mark": b'\xef\xbb\xbf{"path": "a"}',
        "not UTF-8": b'{"path": "\xff"}',
        "not UTF-8 in a name": b'{"pa\xffth": "a"}',
        "overlong UTF-8": b'{"path": "\xc0\xaf"}',
        "surrogate as UTF-8": b'{"path": "\xed\xa0\x80"}',
        "UTF-16": '{"path": "a"}'.encode("utf-16"),
        "NUL": b'{"path": "a\x00"}',
        "control sign": b'{"path": "a\x01"}',
        "NaN": b'{"path": "a", "size": NaN}',
        "NaN beside a surrogate": b'{"path": "\\udce9", "size": NaN}',
        "surrogate and cut": b'{"path": "\\udce9"',
        "deep beside a surrogate": b'["\\udce9",' + b"[" * 200_000,
        "deep": b"[" * 200_000,
        "deep inside of a path": b'{"path": ' + b"[" * 200_000,
        "deep and closed": b'{"path": ' + b"[" * 900 + b"]" * 900 + b"}",
        "too large": b'{"path": "' + b"a" * 2**20 + b'"}',
        "as large as allowed": b'{"path": "' + b"a" * (2**20 - 12) + b'"}',
        "no path": b"{}",
        "empty path": b'{"path": ""}',
        "path twice": b'{"path": 7, "path": "twice"}',
        "path twice, the last bad": b'{"path": "twice", "path": 7}',
        "longest path": b'{"path": "' + b"a" * 4096 + b'"}',
        "path too long": b'{"path": "' + b"a" * 4097 + b'"}',
        "path too long once escaped": b'{"path": "' + b"\\u0000" * 1366 + b'"}',
        "path with half a surrogate": b'{"path": "caf\\udce9.txt"}',
        "path with a whole surrogate pair": b'{"path": "\\ud83d\\ude00"}',
        "path with a NUL": b'{"path": "a\\u0000b"}',
        "path in UTF-8": '{"path": "smörgås/日本.txt"}'.encode(),
        "path that climbs": b'{"path": "../../etc/passwd"}',
        "path of escapes": b'{"path": "a\\"b\\\\c\\n\\u007f\\u0001"}',
        "unknown field": b'{"path": "a", "surprise": 1}',
        "unknown field with half a surrogate": b'{"path": "a", "\\udce9": 1}',
        "unknown field with backticks": b'{"path": "a", "`x` - at `$.y`": 1}',
        "workspace in the body": b'{"path": "a", "workspace": "ws"}',
        "every field": json.dumps(
            {
                **{"path": "all", "op": "renamed", "source": "agent", "id": "all", "digest": "sha256:00"},
                **{"occurred_at": "2026-11-23T12:00:00.123456789+02:00", "size": 2**63 - 1},
            }
        ).encode(),
        "every field null": b'{"path": "n", "source": null, "id": null, "occurred_at": null, "digest": null}',
        "null operation": b'{"path": "a", "op": null}',
        "null path": b'{"path": null}',
    }
    return texts | _values()


def _values() -> dict[str, bytes]:
    texts = dict[str, bytes]()
    values = {
        "path": ["7", "true", "[]", "{}", "1.5"],
        "op": ['"created"', '"deleted"', '"eaten"', '"Modified"', '"\\udce9"', "1", '""'],
        "size": ["0", "-1", "-0", str(2**63), "1e400", "1.0", "1e2", "1.5", "true", '"1"', "9" * 400, "01", "+1"],
        "occurred_at": [
            *('"2026-11-23T12:00:00Z"', '"2026-11-23t12:00:00z"', '"2026-11-23 12:00:00Z"', '"2026-11-23T12:00:00"'),
            *('"2026-11-23"', '"yesterday"', "0", "1763899200", '""', '"0001-01-01T00:00:00+23:00"', "1.5"),
            *('"9999-12-31T23:59:59-23:00"', '"1969-12-31T23:59:59Z"', '"1970-01-01T00:00:00Z"', '"\\udce9"'),
            *('"9998-12-31T23:59:59Z"', '"9999-01-01T00:00:00Z"', '"2026-02-30T00:00:00Z"', '"2026-11-23T12:00:60Z"'),
            *('"2026-11-23T12:00:00+24:00"', '"2026-11-23T12:00Z"', '"2026-11-23T12:00:00.Z"', '"20261123T120000Z"'),
        ],
    }
    for name in ("source", "id", "digest"):
        values[name] = ['""', '" "', '"a b"', f'"{"i" * 256}"', f'"{"i" * 257}"', '"\\u0000"', '"\\ud800"', "7", "[]"]
    for name, each in values.items():
        for value in each:
            texts[f"{name} {value[:60]}"] = b'{%s"%s": %s}' % (
                *(b"" if name == "path" else b'"path": "v", ', name.encode(), value.encode()),
            )
    return texts


def _singles() -> dict[str, Request]:
    found = {f"body: {name}": one(body) for name, body in _single_bodies().items()}
    found["chunks"] = Request(target=ONE, headers=(HOST, JSON), body=(b'{"pa', b"", b'th": ', b'"chunks"}'))
    found["too large in chunks"] = Request(target=ONE, headers=(HOST, JSON), body=(b"a" * 65_536,) * 20)
    found["too large to be read"] = Request(target=ONE, headers=(HOST, JSON), body=(b"a" * 1_048_576,) * 20)
    found["body that never ends"] = Request(target=ONE, headers=(HOST, JSON), body=(b"{",), ending=NEVER_ENDS)
    found["body that never begins"] = Request(target=ONE, headers=(HOST, JSON), body=(), ending=NEVER_ENDS)
    found["caller that left"] = Request(target=ONE, headers=(HOST, JSON), body=(b"{",), ending=GONE)
    found["caller that left at once"] = Request(target=ONE, headers=(HOST, JSON), body=(), ending=GONE)
    found["stored once"] = one({"path": "once", "id": "once"})
    found["stored once, again"] = one({"path": "once", "id": "once"})
    found["stored once, another"] = one({"path": "other", "id": "once"})
    found["stored once, of another workspace"] = one(
        {"path": "once", "id": "once"}, target="/v1/workspaces/held/writes"
    )
    found["same key"] = one({"path": "keyed"}, keyed(b"same"))
    found["same key, again"] = one({"path": "keyed"}, keyed(b"same"))
    found["same key, another body"] = one(b'{"path":  "keyed"}', keyed(b"same"))
    found["same key, another address"] = one({"path": "keyed"}, keyed(b"same"), target="/v1/workspaces/held/writes")
    found["same key, refused"] = one({"path": ""}, keyed(b"refused"))
    found["same key, good now"] = one({"path": "good"}, keyed(b"refused"))
    found["held"] = one({"path": "h"}, target="/v1/workspaces/held/writes")
    found["removed"] = one({"path": "r"}, target="/v1/workspaces/removed/writes")
    found["only recorded"] = one({"path": "docs/x"}, target="/v1/workspaces/ruled/writes")
    found["with its rule's numbers"] = one({"path": "slow/x"}, target="/v1/workspaces/ruled/writes")
    return found


def _batches() -> dict[str, Request]:
    good = {"workspace": "ws", "path": "b"}
    mixed = [
        *(
            good,
            {**good, "workspace": "none"},
            {**good, "surprise": 1},
            {**good, "id": "batch"},
            {**good, "id": "batch"},
        ),
        *({**good, "id": "batch", "path": "other"}, {**good, "workspace": "a b"}, {"path": "b"}, 7, None, "{}", [good]),
        *({**good, "workspace": 7}, {**good, "path": ""}, {**good, "workspace": "held"}, {**good, "workspace": ""}),
        *({**good, "path": "docs/x", "workspace": "ruled"}, {**good, "size": -1}, {**good, "op": "eaten"}),
        *({**good, "occurred_at": "1960-01-01T00:00:00Z"}, {**good, "source": " "}, {**good, "workspace": "removed"}),
    ]
    bodies: dict[str, bytes | list[Any]] = {
        "mixed": mixed,
        "mixed, again": mixed,
        "one": [good],
        "none": [],
        "an object": b'{"workspace": "ws", "path": "a"}',
        "a text": b'"[]"',
        "null": b"null",
        "all bad": [7, {"workspace": "none", "path": "a"}],
        "empty": b"",
        "cut": b'[{"workspace": "ws", "path": "a"}',
        "not UTF-8 in one": b'[{"workspace": "ws", "path": "a"}, {"workspace": "ws", "path": "\xff"}]',
        "not UTF-8 in an unknown field": b'[{"workspace": "ws", "path": "a", "x": "\xff"}]',
        "a surrogate in one": b'[{"workspace": "ws", "path": "s"}, {"workspace": "ws", "path": "\\udce9"}]',
        "a surrogate in a workspace": b'[{"workspace": "\\udce9", "path": "s"}]',
        "deep": b"[" * 200_000,
        "deep in one": b'[{"workspace": "ws", "path": "a"}, ' + b"[" * 900 + b"]" * 900 + b"]",
        "too many": b"[" + b"1," * 10_000 + b"1]",
        "too large": b'["' + b"a" * 2**20 + b'"]',
        "a field twice": b'[{"workspace": 7, "workspace": "ws", "path": "a"}]',
    }
    found = {f"batch: {name}": many(body) for name, body in bodies.items()}
    raw = b"\n".join(json.dumps(item).encode() for item in mixed)
    found["lines: mixed"] = lines(raw + b"\n{broken\n\xff\n\n \t\n" + b'{"workspace": "ws", "path": "\\udce9"}\r\n')
    for name, body in {
        "nothing": b"",
        "blank": b"\n \n\t\n",
        "too many": b"{}\n" * 10_001,
        "as many as allowed, all bad": b"1\n" * 20,
        "an array": b'[{"workspace": "ws", "path": "a"}]',
        "no newline": b'{"workspace": "ws", "path": "l"}',
        "carriage returns": b'{"workspace": "ws", "path": "l"}\r{"workspace": "ws", "path": "m"}',
        "two on a line": b'{"workspace": "ws", "path": "l"} {"workspace": "ws", "path": "m"}',
        "byte order mark": b'\xef\xbb\xbf{"workspace": "ws", "path": "l"}',
        "deep": b"[" * 100_000 + b"\n",
    }.items():
        found[f"lines: {name}"] = lines(body)
    found["batch with a key"] = many([good, 7], keyed(b"batch"))
    found["batch with a key, again"] = many([good, 7], keyed(b"batch"))
    found["batch with a key, another body"] = many([good], keyed(b"batch"))
    found["batch with a key, all bad"] = many([7], keyed(b"all-bad"))
    found["batch with a bad key"] = many([good], keyed(b"a b"))
    found["batch in chunks"] = Request(
        target=MANY, headers=(HOST, NDJSON), body=(b'{"workspace": "ws", ', b'"path": "c"}\n', b"{}")
    )
    found["batch that never ends"] = Request(target=MANY, headers=(HOST, NDJSON), body=(b"{",), ending=NEVER_ENDS)
    return found


def _damaged() -> Iterator[tuple[str, Request]]:
    """Bodies as the fuzz lane makes them: a good one with a byte changed, left out or put in."""
    chance = random.Random(4)
    kinds = [("write", JSON, ONE), ("batch", JSON, MANY), ("ndjson", NDJSON, MANY), ("deep", JSON, MANY)]
    for name, kind, target in kinds:
        for number in range(DAMAGED if name != "deep" else 8):
            good = chance.choice(seed(name))
            at = chance.randrange(len(good))
            byte = bytes([chance.randrange(256)]) if chance.random() < 0.3 else chance.choice([b'"', b"\\", b"{", b"1"])
            body = good[:at] + byte + good[at + chance.randrange(3) :]
            yield f"damaged {name} {number}", sent(body, (kind,), target)


def requests() -> dict[str, Request]:
    """Return all of them, by name, in the order in which they are sent."""
    return {**_addresses(), **_heads(), **_singles(), **_batches(), **dict(_damaged())}
