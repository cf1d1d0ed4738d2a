"""The API's own description. That it tells the truth is checked by every other test here, answer by answer."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api.conftest import Api

PROMISED = {  # CONTRACT sections 5 and 8, as far as it is there
    ("get", "/v1/keys"),
    ("post", "/v1/keys"),
    ("post", "/v1/keys/{key}/rotate"),
    ("delete", "/v1/keys/{key}"),
    ("get", "/v1/whoami"),
    ("post", "/v1/workspaces/{workspace}/writes"),
    ("post", "/v1/writes"),
    ("get", "/v1/writes/{write}"),
    ("get", "/v1/writes"),
    ("put", "/v1/workspaces/{workspace}"),
    ("get", "/v1/workspaces/{workspace}"),
    ("delete", "/v1/workspaces/{workspace}"),
    ("get", "/v1/workspaces"),
    ("post", "/v1/workspaces/{workspace}/restarts"),
    ("post", "/v1/workspaces/{workspace}/probes"),
    ("post", "/v1/workspaces/{workspace}/hold"),
    ("post", "/v1/workspaces/{workspace}/release"),
    ("get", "/v1/restarts"),
    ("get", "/v1/restarts/{restart}"),
    ("get", "/v1/restarts/{restart}/writes"),
    ("post", "/v1/restarts/{restart}/cancel"),
    ("get", "/v1/events"),
    ("get", "/v1/events/stream"),
    *(("get", f"/v1/audit/{name}") for name in ("summary", "storms", "hot-files", "failures", "export")),
    ("get", "/v1/policies/default"),
    ("put", "/v1/policies/default"),
    ("get", "/v1/policies/fleets/{fleet}"),
    ("put", "/v1/policies/fleets/{fleet}"),
    ("get", "/v1/audit/checkpoints"),
    ("get", "/v1/audit/evidence/{restart}"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
}


def test_description_is_valid_and_whole(api: Api) -> None:
    document = api.description.document
    OpenAPIV31SpecValidator(document).validate()

    assert document["openapi"].startswith("3.1")
    assert {(method, path) for method, path, _ in api.description.operations()} == PROMISED


def test_every_operation_is_named_tagged_and_honest_about_errors(api: Api) -> None:
    names = []
    for method, path, operation in api.description.operations():
        names.append(operation["operationId"])
        assert operation["tags"]
        assert operation["summary"]
        for status, response in operation["responses"].items():
            if int(status) >= 400 and path != "/readyz":
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
        if method in ("post", "put") and not path.endswith("/rotate"):
            assert operation["requestBody"]["content"]
            assert {"400", "413", "415", "422", "503"} <= operation["responses"].keys()
        if method == "post" and not path.startswith("/v1/keys"):  # a key is kept nowhere, so it is not told again
            assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]

    assert len(names) == len(set(names))
    assert "HTTPValidationError" not in api.description.document["components"]["schemas"]


def test_index_leads_on_and_loads_nothing_from_elsewhere(api: Api) -> None:
    for link in api.get("/")["links"].values():
        if not link.endswith("/stream"):
            assert api.http.get(link).status_code == 200
    assert api.http.get("/docs").status_code == 404


POLICIES: list[dict[str, Any]] = [
    {},
    {"quiet": "1m30s", "max_wait": 2.5, "min_interval": 0, "settle": "0", "max_count": 1, "edge": "leading"},
    {"quiet": None, "edge": None, "rules": None, "max_concurrent": None},
    {"rules": [{"match": "docs/**", "action": "record"}, {"match": ["a", "b"], "quiet": "1s", "max_wait": 3}]},
    {"mode": "shadow", "lease": " 3s ", "cycle_timeout": "30d"},
    {"quiet": "soon"},
    {"quiet": "-1s"},
    {"quiet": -1},
    {"quiet": 1e300},
    {"quiet": True},
    {"max_count": 0},
    {"max_count": "3"},
    {"max_attempts": 10**10},
    {"edge": "both"},
    {"mode": 1},
    {"quite": "2s"},
    {"rules": [{}]},
    {"rules": [{"match": []}]},
    {"rules": [{"match": "a", "action": "x"}]},
    {"rules": [{"match": "a", "settle": "1s"}]},
    {"rules": 5},
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_description_of_a_policy_agrees_with_the_api(api: Api, policy: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/PolicyBody", "components": api.description.document["components"]}
    described = Draft202012Validator(schema).is_valid(policy)

    layer = api.http.put("/v1/policies/fleets/f", json=policy)
    own = api.http.put("/v1/workspaces/ws", json={"executor": "simulated", "policy": policy})

    assert layer.status_code == (200 if described else 422), layer.text
    assert own.status_code == (200 if described else 422), own.text
