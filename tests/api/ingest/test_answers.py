"""The two ways in for writes answer as they did when they were routes of FastAPI."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from fastapi import FastAPI

from orchestrator.api.protocol import bodies
from tests.api.ingest.recorded import (
    BRIEF_S,
    DESCRIPTION,
    answers_to,
    app_of,
    described,
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
