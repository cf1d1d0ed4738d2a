"""Is the process alive, and can it serve: each check is bounded in time, so that the answer always comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from orchestrator.api.protocol import answers
from orchestrator.api.protocol.openapi import describe
from orchestrator.bootstrap import Services
from orchestrator.domain.explain import counted
from orchestrator.domain.serving import Need
from orchestrator.errors import MigrationsPending, Unavailable
from orchestrator.ports.sealing import SealState

CHECK_WITHIN_S = 3.0
KEPT_S = 2.0
BEAT_STALE_S = 10.0
SEAL_STALE_S = 60.0
_NAMED_MOST = 3
_PARTS = ("database", "migrations", "broker", "beat", "seal", "claims")

router = APIRouter(tags=["health"])


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part's state. ``age_s`` is the beat's: seconds since the last tick."""

    ok: bool
    detail: str
    age_s: float | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        plain: dict[str, Any] = {"ok": self.ok, "detail": self.detail}
        return plain if self.age_s is None else plain | {"age_s": round(self.age_s, 1)}


SEALING_DECLINED = Check(ok=True, detail="declined: ORCHESTRATOR_SEAL_KEY is off, and nothing proves the log")
_SEAL_ADVICE = (
    "workers seal: start one, and give each a key (`orchestrator audit keys new FILE`, ORCHESTRATOR_SEAL_KEY=FILE), or"
    " decline with ORCHESTRATOR_SEAL_KEY=off, here too"
)


@dataclass
class _Asked:
    """The question that is under way, and the last answer."""

    under_way: asyncio.Task[Any] | None = None
    answer: Any = None
    at: float = field(default=-1e9)


class Health:
    """Asks the database and the broker, each at most once at a time, on threads of its own.

    Threads of its own: where the database hangs, requests hold all others.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="health")
        self._database, self._broker = _Asked(), _Asked()

    async def checks(self) -> dict[str, Check]:
        """Return each part's state, within a few seconds."""
        silent = Check(ok=False, detail=f"no answer within {CHECK_WITHIN_S:g} s")
        unknown = Check(ok=False, detail="the database does not answer")
        (database, broker) = await asyncio.gather(
            self._ask(self._database, self._look_at_database, {"database": silent}),
            self._ask(self._broker, self._look_at_broker, silent),
        )
        found = {**dict.fromkeys(_PARTS, unknown), "database": silent} | database
        return {name: found[name] if name != "broker" else broker for name in _PARTS}

    async def _ask(self, asked: _Asked, look: Callable[[], Any], silent: Any) -> Any:
        if asked.under_way is None and time.monotonic() - asked.at < KEPT_S:
            return asked.answer
        if asked.under_way is None:
            asked.under_way = asyncio.create_task(self._answer(asked, look))
        done, _ = await asyncio.wait([asked.under_way], timeout=CHECK_WITHIN_S)
        return asked.answer if done else silent

    async def _answer(self, asked: _Asked, look: Callable[[], Any]) -> None:
        try:
            asked.answer = await asyncio.get_running_loop().run_in_executor(self._threads, look)
            asked.at = time.monotonic()
        finally:
            asked.under_way = None

    def _look_at_database(self) -> dict[str, Check]:
        store = self._services.store
        try:
            store.check()
            with store.read() as reader:
                now = reader.clock()
                beat = beat_check(reader.last_tick_at(), now, self._services.settings.tick_ms)
                declined = self._services.settings.sealing_declined
                seal = SEALING_DECLINED if declined else seal_check(reader.seals.state(), now)
                claims = claims_check(reader.unclaimable(), reader.away())
        except MigrationsPending as error:
            pending = Check(ok=False, detail=str(error))
            return {"database": Check(ok=True, detail="answers"), "migrations": pending}
        except Unavailable as error:
            return {"database": Check(ok=False, detail=str(error))}
        return {
            "database": Check(ok=True, detail="answers"),
            "migrations": Check(ok=True, detail="at the revision of this version"),
            "beat": beat,
            "seal": seal,
            "claims": claims,
        }

    def _look_at_broker(self) -> Check:
        try:
            self._services.check_broker()
        except Unavailable as error:
            return Check(ok=False, detail=f"{error}; writes are stored, restarts wait")
        return Check(ok=True, detail="answers")

    def close(self) -> None:
        """End the threads; one that hangs is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def beat_check(last_tick_at: datetime | None, now: datetime, tick_ms: int) -> Check:
    """Return the beat's state: stale from 10 ticks on, and never before 10 s."""
    if last_tick_at is None:
        return Check(ok=False, detail="there was no tick yet; is beat running?")
    age_s = max(0.0, (now - last_tick_at) / timedelta(seconds=1))
    stale_s = max(BEAT_STALE_S, 10 * tick_ms / 1000)
    if age_s > stale_s:
        return Check(
            ok=False, detail=f"the last tick was {age_s:.0f} s ago; are beat and a worker running?", age_s=age_s
        )
    return Check(ok=True, detail="ticks", age_s=age_s)


def claims_check(unclaimable: int, away: Mapping[Need, datetime]) -> Check:
    """Return whether somebody is there for every restart that waits."""
    if unclaimable == 0:
        return Check(ok=True, detail="somebody serves what waits")
    missing = ", ".join(f"executor {executor} in pool {pool}" for executor, pool in sorted(away)[:_NAMED_MOST])
    return Check(
        ok=False, detail=f"{unclaimable} workspaces wait for what no worker serves: {missing}; start one that does"
    )


def seal_check(state: SealState, now: datetime) -> Check:
    """Return whether the log is being sealed and its checkpoints leave the database, each within a minute."""
    because = f" ({state.failed_because})" if state.failed_because else ""
    late = timedelta(seconds=SEAL_STALE_S)
    if state.unsealed_since is not None and now - state.unsealed_since > late:
        since = f"the first for more than {SEAL_STALE_S:g} s{because}"
        detail = f"not sealed: {counted(state.unsealed, 'event')} or more, {since}"
        return Check(ok=False, detail=f"{detail}; {_SEAL_ADVICE}")
    if state.unexported_since is not None and now - state.unexported_since > late:
        detail = f"{state.unexported} checkpoints have not left the database{because}"
        return Check(ok=False, detail=f"{detail}; set ORCHESTRATOR_CHECKPOINT_DIR or _WEBHOOK, or mend it")
    return Check(ok=True, detail="seals" if state.newest is not None else "nothing to seal yet")


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    operation_id="livez",
    summary="The process is alive",
    responses={200: describe(answers.ALIVE, "Always")},
)
async def livez() -> JSONResponse:
    """Say so."""
    return JSONResponse({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    operation_id="readyz",
    summary="What works: database, migrations, broker, beat, seal, claims",
    description="503 only where writes cannot be stored. A broker that is away, a beat that is late and a log that is"
    " not sealed are `degraded`, and so are restarts that no worker can carry out.",
    responses={200: describe(answers.READY, "Ready or degraded"), 503: describe(answers.READY, "Cannot serve")},
)
async def readyz(request: Request) -> JSONResponse:
    """Return each part's state."""
    health: Health = request.app.state.health
    checks = await health.checks()
    status = "ready" if all(check.ok for check in checks.values()) else "degraded"
    if not (checks["database"].ok and checks["migrations"].ok):
        status = "unavailable"
    answer = {"status": status, "checks": {name: check.plain() for name, check in checks.items()}}
    headers = {"Retry-After": "2"} if status == "unavailable" else {}
    return JSONResponse(answer, 503 if status == "unavailable" else 200, headers)
