"""What somebody may have meant: every word that is refused is refused with the nearest one that is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_CHOICE = re.compile(r"'(?P<given>[^']*)' is not one of (?P<known>'.+')\.?$")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest of the known words; empty where none is near."""
    by_folded = {word.casefold(): word for word in known}
    near = get_close_matches(given.casefold(), by_folded, n=1)
    return f" Did you mean '{by_folded[near[0]]}'?" if near else ""


def with_nearest(message: str) -> str:
    """Return a message of the parser, with the nearest word where it refused one of a few choices."""
    plain = message.replace("Value error, ", "")
    found = _CHOICE.search(plain)
    return plain if found is None else plain + did_you_mean(found["given"], re.findall("'([^']+)'", found["known"]))
