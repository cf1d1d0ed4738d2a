from __future__ import annotations

import pytest

from tests.audit.verify.logs import Log, make_good_log


@pytest.fixture(scope="session")
def good_lines() -> bytes:
    """An export in which every promise is kept."""
    return make_good_log()


@pytest.fixture
def log(good_lines: bytes) -> Log:
    """The good log, for this test to break."""
    return Log(good_lines)
