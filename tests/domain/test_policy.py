"""Policies: defaults, layers, what is refused and by which name, rules, and their rendering."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.policy import (
    DEFAULT_SCOPE,
    SETTINGS_SCOPE,
    Action,
    Edge,
    Mode,
    Policies,
    Policy,
    PolicyLayer,
    PolicyPatch,
    Rule,
    fleet_scope,
    parse_policy,
    render_policy,
    said_by,
)
from orchestrator.errors import InvalidInput

DURATIONS = (
    *("quiet", "max_wait", "min_interval", "settle", "cycle_timeout"),
    *("retry_backoff", "retry_backoff_max", "give_up_backoff", "lease"),
)
ZERO_MAKES_SENSE = ("quiet", "min_interval", "settle", "retry_backoff")
COUNTS = ("max_count", "max_attempts", "max_concurrent")


def test_the_defaults_are_the_contracts() -> None:
    assert render_policy(Policy()) == {
        "quiet": "15s",
        "max_wait": "1m",
        "max_count": 10_000,
        "edge": "trailing",
        "min_interval": "1m",
        "settle": "30s",
        "cycle_timeout": "5m",
        "max_attempts": 3,
        "retry_backoff": "5s",
        "retry_backoff_max": "5m",
        "give_up_backoff": "5m",
        "lease": "30s",
        "rules": [],
        "max_concurrent": None,
        "mode": "live",
    }


def test_every_field_can_be_set() -> None:
    given = {
        **dict.fromkeys(DURATIONS, "2s"),
        **dict.fromkeys(COUNTS, 2),
        "edge": "leading",
        "mode": "shadow",
        "rules": [{"match": "docs/**", "action": "record"}],
    }
    patch = parse_policy(given)
    assert set(said_by(patch)) == set(PolicyPatch.__struct_fields__)
    assert (patch.edge, patch.mode, patch.max_count, patch.lease_ms) == (Edge.LEADING, Mode.SHADOW, 2, 2_000)


def test_a_null_says_nothing() -> None:
    assert parse_policy({"quiet": None, "max_concurrent": None, "rules": None}) == PolicyPatch()


BAD_DURATIONS: tuple[Any, ...] = ("-1s", -1, "soon", "", True, [], {}, "0.5ms", "31d", 1e12, float("nan"))
BAD_COUNTS: tuple[Any, ...] = (0, -1, 1.5, 2.0, "3", True, [], 10**10)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", BAD_DURATIONS, ids=repr)
def test_a_bad_duration_is_refused_by_name(name: str, value: Any) -> None:
    refused(name, value)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", BAD_COUNTS, ids=repr)
def test_a_bad_count_is_refused_by_name(name: str, value: Any) -> None:
    refused(name, value)


@pytest.mark.parametrize("name", DURATIONS)
def test_zero_is_refused_where_it_makes_no_sense(name: str) -> None:
    if name in ZERO_MAKES_SENSE:
        assert said_by(parse_policy({name: "0s"})) == {f"{name}_ms": 0}
    else:
        refused(name, "0s")
        refused(name, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("edge", "both"), ("edge", ""), ("edge", 1), ("edge", ["leading"]), ("edge", "LEADING")),
        *(("mode", "dry"), ("mode", True), ("mode", {})),
        *(("quiet_ms", 5), ("Quiet", "5s"), ("version", 3), ("", 1), ("max-wait", "5s"), ("unknown", None)),
        *(("rules", "docs/**"), ("rules", {}), ("rules", 3), ("rules", [{"match": "a"}] * 1_001)),
    ],
)
def test_a_bad_value_or_an_unknown_field_is_refused_by_name(name: str, value: Any) -> None:
    refused(name, value)


NO_RULES: tuple[Any, ...] = ("docs/**", 3, None, [], {}, {"action": "record"})
NO_PATTERNS: tuple[Any, ...] = (None, 3, {}, [3], ["a", None], [], "", "# a", "[")


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        *((rule, "policy.rules[1]") for rule in NO_RULES),
        ({"match": "a", "when": "now"}, "policy.rules[1].when"),
        ({"match": "a", "action": "ignore"}, "policy.rules[1].action"),
        ({"match": "a", "action": None}, "policy.rules[1].action"),
        ({"match": "a", "quiet": "-1s"}, "policy.rules[1].quiet"),
        ({"match": "a", "quiet": True}, "policy.rules[1].quiet"),
        ({"match": "a", "max_wait": "0s"}, "policy.rules[1].max_wait"),
        *(({"match": match}, "policy.rules[1].match") for match in NO_PATTERNS),
    ],
    ids=repr,
)
def test_a_bad_rule_is_refused_by_its_place(rule: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_policy({"rules": [{"match": "fine"}, rule]})
    assert error.value.field == field
    assert field in str(error.value)


def refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_policy({name: value})
    assert error.value.field == f"policy.{name}"
    assert f"policy.{name}" in str(error.value)


def test_the_caller_says_how_the_field_is_called() -> None:
    with pytest.raises(InvalidInput) as error:
        parse_policy({"quiet": -1}, field="ORCHESTRATOR_POLICY")
    assert error.value.field == "ORCHESTRATOR_POLICY.quiet"


# --- layers


def layers(**by_scope: tuple[int, dict[str, Any]]) -> Policies:
    named = {scope.replace("fleet_", "fleet:"): given for scope, given in by_scope.items()}
    return Policies(
        layers={
            scope: PolicyLayer(scope=scope, policy=parse_policy(given), version=version)
            for scope, (version, given) in named.items()
        }
    )


def test_without_layers_the_built_in_numbers_hold() -> None:
    assert Policies(layers={}).in_force("default", PolicyPatch()) == Policy()


def test_the_nearest_layer_wins_field_by_field() -> None:
    stored = layers(
        settings=(1, {"quiet": "1s", "max_wait": "1m", "settle": "1s", "lease": "11s"}),
        default=(4, {"quiet": "2s", "max_wait": "2m", "settle": "2s"}),
        fleet_blue=(3, {"quiet": "3s", "max_wait": "3m"}),
    )
    found = stored.in_force("blue", parse_policy({"quiet": "4s"}))
    assert (found.quiet_ms, found.max_wait_ms, found.settle_ms, found.lease_ms) == (4_000, 180_000, 2_000, 11_000)
    assert found.min_interval_ms == Policy().min_interval_ms
    assert found.version == 4


def test_another_fleets_layer_does_not_count() -> None:
    stored = layers(fleet_blue=(3, {"quiet": "3s"}))
    assert stored.in_force("green", PolicyPatch()) == Policy()
    assert stored.in_force("blue", PolicyPatch()).version == 3


def test_a_layer_may_set_zero_and_an_empty_list() -> None:
    stored = layers(default=(1, {"quiet": "5s", "rules": [{"match": "a"}]}), fleet_blue=(2, {"quiet": 0, "rules": []}))
    found = stored.in_force("blue", PolicyPatch())
    assert (found.quiet_ms, found.rules) == (0, ())


def test_the_scopes_are_named_as_the_log_names_them() -> None:
    assert (SETTINGS_SCOPE, DEFAULT_SCOPE, fleet_scope("blue")) == ("settings", "default", "fleet:blue")


# --- rules


def test_a_rules_defaults() -> None:
    assert parse_policy({"rules": [{"match": "a/**"}]}).rules == (Rule(match=("a/**",), action=Action.RESTART),)


def test_first_match_wins_and_no_match_is_none() -> None:
    rules = parse_policy(
        {"rules": [{"match": ["docs/**", "!docs/api/**"], "action": "record"}, {"match": "docs/**", "quiet": "1s"}]}
    ).rules
    found = Policy(rules=rules or ())
    assert [found.rule_for(path) for path in ("docs/a", "docs/api/b", "src/a")] == [*found.rules, None]


# --- rendering

SPANS = st.integers(1, 86_400_000)
PATCHES = st.builds(
    PolicyPatch,
    **{f"{name}_ms": st.none() | SPANS for name in DURATIONS},
    **{name: st.none() | st.integers(1, 1_000) for name in COUNTS},
    edge=st.none() | st.sampled_from(Edge),
    mode=st.none() | st.sampled_from(Mode),
    rules=st.none()
    | st.lists(
        st.builds(
            Rule,
            match=st.lists(st.sampled_from(["a/**", "*.log", "!b"]), min_size=1).map(tuple),
            action=st.sampled_from(Action),
            quiet_ms=st.none() | SPANS,
            max_wait_ms=st.none() | SPANS,
        ),
        max_size=3,
    ).map(tuple),
)


@given(PATCHES)
def test_a_rendered_layer_parses_back_to_itself(patch: PolicyPatch) -> None:
    assert parse_policy(render_policy(patch)) == patch


@given(PATCHES)
def test_a_rendered_policy_parses_back_to_its_numbers(patch: PolicyPatch) -> None:
    whole = Policy(**said_by(patch))
    assert Policy(**said_by(parse_policy(render_policy(whole)))) == whole
