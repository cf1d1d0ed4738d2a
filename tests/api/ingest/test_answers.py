"""The two ways in for writes answer as they did when they were routes of FastAPI."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI

from orchestrator.api.protocol import bodies
from tests.api.ingest.asking import Request, ask
from tests.api.ingest.recorded import (
    BRIEF_S,
    DESCRIPTION,
    HEADERS,
    answers_to,
    app_of,
    described,
    prepare,
    recorded,
    stored,
    told_alike,
)


def test_every_answer_is_what_it_was_and_so_is_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_BODY_ARRIVES_WITHIN_S", BRIEF_S)
    asked, then, kept = recorded()
    with app_of(tmp_path) as (app, services):
        now = asyncio.run(answers_to(app, asked))
        assert stored(services) == kept
    changed = {
        name: (then[name], answer)
        for name, answer in now.items()
        if told_alike(asked[name], answer) != told_alike(asked[name], then[name])
    }
    assert changed == {}
    assert len(now) > 700


def test_the_description_of_them_is_what_it_was(tmp_path: Path) -> None:
    with app_of(tmp_path) as (app, _):
        assert isinstance(app, FastAPI)
        assert json.dumps(described(app.openapi())) == json.dumps(json.loads(DESCRIPTION.read_text()))


def test_a_key_is_kept_with_what_the_version_before_kept_it_with(tmp_path: Path) -> None:
    """Both may serve one database, and a caller's second try may come to the other."""
    body = b'{"path": "a"}'
    headers = (*HEADERS, (b"idempotency-key", b"k"))

    async def write() -> int:
        await prepare(app)
        return (await ask(app, Request(target="/v1/workspaces/ws/writes?x=1", headers=headers, body=(body,)))).status

    with app_of(tmp_path) as (app, _):
        assert asyncio.run(write()) == 202
    with closing(sqlite3.connect(tmp_path / "orchestrator.db")) as connection:
        [(fingerprint,)] = connection.execute("SELECT fingerprint FROM idempotency_keys")
    assert fingerprint == hashlib.sha256(b"POST /v1/workspaces/ws/writes\n" + body).hexdigest()
