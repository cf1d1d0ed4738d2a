"""The pure core, in virtual time."""

import pytest

pytest.register_assert_rewrite("tests.domain.given_when_then", "tests.domain.promises")
