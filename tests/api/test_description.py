"""The API's own description. That it tells the truth is checked by every other test here, answer by answer."""

from __future__ import annotations

from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api.conftest import Api

PROMISED = {  # CONTRACT section 5, as far as it is there
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
    ("get", "/v1/policies/default"),
    ("put", "/v1/policies/default"),
    ("get", "/v1/policies/fleets/{fleet}"),
    ("put", "/v1/policies/fleets/{fleet}"),
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
        if method in ("post", "put"):
            assert operation["requestBody"]["content"]
            assert {"400", "413", "415", "422", "503"} <= operation["responses"].keys()
        if method == "post":
            assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]

    assert len(names) == len(set(names))
    assert "HTTPValidationError" not in api.description.document["components"]["schemas"]


def test_index_leads_on_and_loads_nothing_from_elsewhere(api: Api) -> None:
    for link in api.get("/")["links"].values():
        if not link.endswith("/stream"):
            assert api.http.get(link).status_code == 200
    assert api.http.get("/docs").status_code == 404
