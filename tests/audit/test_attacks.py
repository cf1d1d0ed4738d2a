"""Whoever owns the database, and what becomes of it (research: the table of tamperings, one test each).

The attacker is PostgreSQL's superuser, or has SQLite's file in hand. Checkpoints were exported before. Every attack
but those on the unsealed tail is found by the public command, with the exported checkpoint and the public key alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.audit.seal import Signing, seal_next
from orchestrator.cli import main
from orchestrator.ports import EventStore
from orchestrator.storage.opening import open_store
from orchestrator.storage.urls import database_url
from tests.audit.sealing import KEY, ORIGIN, SIGNING, key
from tests.history import History, TestClock
