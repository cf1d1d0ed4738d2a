"""Which tests run in the same process of pytest-xdist: those that share a deployment, which costs seconds to start.

pytest-xdist's own mark for this, ``xdist_group``, does nothing under pytest 9.2: xdist 3.8 writes it to an
attribute of the test that pytest no longer reads.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

_SYSTEM = "tests/system/"
_WHOLE = (
    "tests/chaos/",
    "tests/rabbitmq/",
    "tests/cli/test_acting.py",
    "tests/fuzz/test_api.py",
    "tests/storage/test_plans.py",
)
_DEPLOYMENTS = ("embedded", "production")


class SharedDeploymentScheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Every test by itself, but those that share a deployment together; the largest group first."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """A folder or file that shares one thing; the system tests' deployment, or else their file; else the test."""
    for whole in _WHOLE:
        if nodeid.startswith(whole):
            return whole
    if not nodeid.startswith(_SYSTEM):
        return nodeid
    file, _, test = nodeid.partition("::")
    deployment = test.partition("[")[2].partition("]")[0].partition("-")[0]
    return f"{_SYSTEM}:{deployment}" if deployment in _DEPLOYMENTS else file
