from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.verify.logs import Log, make_good_database, make_good_log


@pytest.fixture(scope="session")
def good_lines() -> bytes:
    """An export in which every promise is kept."""
    return make_good_log()


@pytest.fixture
def log(good_lines: bytes) -> Log:
    """The good log, for this test to break."""
    return Log(good_lines)


@pytest.fixture(scope="session")
def good_database(tmp_path_factory: pytest.TempPathFactory, migrate_database: Callable[[str], None]) -> Path:
    """The good log in SQLite, to be copied."""
    return make_good_database(tmp_path_factory.mktemp("good") / "good.db", migrate_database)
