"""Every answer of the tests is held against the API's own description: what it says must be true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx2
from jsonschema import Draft202012Validator

METHODS = {"get", "put", "post", "delete"}


class Description:
    """An OpenAPI document, as a check of answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._validator = cache(self._new_validator)
        self._routes = [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), path) for path in document["paths"]]

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.document["paths"].items():
            for method, operation in methods.items():
                yield method, path, operation

    def check(self, response: httpx2.Response) -> None:
        """Raise ``AssertionError`` unless this answer is described, and is as described."""
        request = response.request
        what = f"{request.method} {request.url.path} -> {response.status_code}"
        assert response.headers.get("x-request-id"), f"{what}: no X-Request-Id"
        content_type = response.headers.get("content-type", "").partition(";")[0]
        if response.status_code >= 400 and not (response.status_code == 503 and request.url.path == "/readyz"):
            self._check_problem(response, content_type, what)
        operation = self._operation(request.method.lower().replace("head", "get"), request.url.path)
        if operation is None:
            assert response.status_code in (404, 405) or request.url.path in ("/", "/openapi.json"), f"{what}: unknown"
            return
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, f"{what}: this status is not described"
        schema = described["content"].get(content_type)
        assert schema is not None, f"{what}: {content_type} is not described"
        if request.method != "HEAD" and content_type in ("application/json", "application/problem+json"):
            reference = schema["schema"]["$ref"]
            for error in self._validator(reference).iter_errors(response.json()):
                raise AssertionError(f"{what}: {error.json_path}: {error.message}")

    def _check_problem(self, response: httpx2.Response, content_type: str, what: str) -> None:
        assert content_type == "application/problem+json", f"{what}: {content_type} {response.text[:200]}"
        if response.request.method == "HEAD":
            return
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["x-request-id"]
        for error in self._validator("#/components/schemas/Problem").iter_errors(problem):
            raise AssertionError(f"{what}: {error.json_path}: {error.message}")
        if response.status_code in (429, 503):
            assert int(response.headers["retry-after"]) > 0

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        # The literal path first: /v1/events/stream is no /v1/events/{id}.
        for pattern, template in sorted(self._routes, key=lambda route: route[1].count("{")):
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = self.document["paths"][template].get(method)
                return found
        return None

    def _new_validator(self, reference: str) -> Draft202012Validator:
        return Draft202012Validator({"$ref": reference, "components": self.document["components"]})
