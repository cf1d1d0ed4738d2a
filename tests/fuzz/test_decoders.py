"""Whatever comes, a decoder refuses it in its own words or takes it: never another error, never without an end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.damage import inputs
from tests.fuzz.targets import TARGETS
from tests.thorough import examples


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_is_taken_or_refused(name: str) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].try_(seed)
    assert any(TARGETS[name].try_(seed) for seed in TARGETS[name].seeds)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=examples(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bad_input_is_refused_in_the_decoders_own_words(name: str, data: st.DataObject) -> None:
    TARGETS[name].try_(data.draw(inputs(TARGETS[name].seeds)))
