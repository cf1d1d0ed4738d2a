"""The API's client of the tests: real HTTP, one method for each thing that people and programs do."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2

Answer = dict[str, Any]
"""A JSON object."""

_TIMEOUT_S = 15.0


class Client:
    """Talks to the API at ``url``. Safe for use by several threads. Any answer but the expected one fails the test."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx2.Client(base_url=url, timeout=_TIMEOUT_S, headers={"Authorization": f"Bearer {key}"})

    def close(self) -> None:
        self.http.close()

    def register(self, workspace: str, body: Answer) -> None:
        self._expect(self.http.put(f"/v1/workspaces/{workspace}", json=body), 200, 201)

    def remove(self, workspace: str) -> None:
        self._expect(self.http.delete(f"/v1/workspaces/{workspace}"), 200, 204)

    def write(self, workspace: str, path: str, **more: str) -> Answer:
        return self._expect(self.http.post(f"/v1/workspaces/{workspace}/writes", json={"path": path, **more}), 202)

    def write_all(self, workspace: str, paths: Sequence[str], *, at_once: int = 1) -> list[Answer]:
        """Write one after the other, or from ``at_once`` threads."""
        if at_once == 1:
            return [self.write(workspace, path) for path in paths]
        with ThreadPoolExecutor(at_once) as writers:
            return list(writers.map(lambda path: self.write(workspace, path), paths))

    def restart(self, workspace: str, trigger: str) -> Answer:
        body = {"reason": "a test asks", "trigger": trigger}
        return self._expect(self.http.post(f"/v1/workspaces/{workspace}/restarts", json=body), 202)

    def probe(self, workspace: str) -> tuple[str, str | None]:
        """Report that it is unhealthy; return the decision and, where suppressed, the reason."""
        body = {"healthy": False, "detail": "no answer"}
        answer = self._expect(self.http.post(f"/v1/workspaces/{workspace}/probes", json=body), 202)
        return answer["decision"], answer.get("reason")

    def hold(self, workspace: str) -> None:
        self._expect(self.http.post(f"/v1/workspaces/{workspace}/hold", json={"reason": "a test"}), 200)

    def release(self, workspace: str) -> None:
        self._expect(self.http.post(f"/v1/workspaces/{workspace}/release", json={"reason": "a test"}), 200)

    def get(self, path: str) -> Answer:
        return self._expect(self.http.get(path), 200)

    @staticmethod
    def _expect(response: httpx2.Response, *codes: int) -> Answer:
        assert response.status_code in codes, f"{response.request.url}: {response.status_code} {response.text}"
        answer: Answer = response.json() if response.content else {}
        return answer
