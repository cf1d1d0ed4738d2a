"""How far the due instants of open windows follow a changed policy layer."""

from __future__ import annotations

import msgspec


class Recomputation(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that was changed and that not all open windows of its scope follow yet.

    ``to``: the last workspace, by id, up to which they do; those after it may still be due by the layer of before.
    """

    scope: str
    version: int
    to: str = ""
