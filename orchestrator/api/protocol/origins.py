"""Which requests a browser sends for another site's page. Those must change nothing here, whatever they hold.

The rule is that of Go's cross-origin protection (1.25), which OWASP's cheat sheet on request forgery names too: what
only reads passes; else ``Sec-Fetch-Site``, which pages cannot set, decides; else ``Origin`` must be the host that was
asked; a request with neither comes from no browser.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = (b"same-origin", b"none")


def is_of_other_site(method: str, head: Mapping[bytes, bytes]) -> bool:
    """Return whether a request would change something for a page of another origin."""
    if method in _READING:
        return False
    site = head.get(b"sec-fetch-site")
    if site is not None:
        return site.lower() not in _OWN
    origin = head.get(b"origin")
    return origin is not None and not _is_origin_of(origin, head.get(b"host", b""))


def _is_origin_of(origin: bytes, host: bytes) -> bool:
    try:
        named = urlsplit(origin.decode("ascii"))
    except ValueError:
        return False
    return bool(named.netloc) and named.netloc.lower().encode() == host.lower()
