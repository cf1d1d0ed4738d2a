"""Bad input made from good: cut, doubled, overwritten, with numbers and marks where they hurt."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

_MARKS = (
    b"\x00",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"\n\n",
    b"\r",
    b"\xe2\x80\x94 ",
    b"-1",
    b"0",
    b"1e999",
    b"9" * 30,
    b"1.5",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"[[[[",
    b"NaN",
    b"+00:00",
    b"9999-12-31T23:59:59.999999Z",
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Draw a good input with up to four damages."""
    given = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(given)))
        end = draw(st.one_of(st.just(begin), st.integers(begin, min(len(given), begin + 40))))
        new = draw(
            st.one_of(st.just(b""), st.sampled_from(_MARKS), st.binary(max_size=4), st.just(given[begin:end] * 2))
        )
        given = given[:begin] + new + given[end:]
    return given


def inputs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly damaged good input, sometimes noise."""
    return st.one_of(damaged(seeds), damaged(seeds), damaged(seeds), st.binary(max_size=200))
