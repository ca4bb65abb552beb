"""Ways to damage a file: by its bytes, and by what they mean."""

import math
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

NUMBERS = (0, 1, -1, 7, 255, 65535, 2**15, -(2**15), 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
REALS = (0.0, -1.0, 1e30, 1e-30, 1e300, math.nan, math.inf, -math.inf)
SHAPES = ("<B", "<h", "<i", "<q", ">h", ">i", ">q")
WORDS = (b"0", b"-1", b"1e999", b"9" * 25, b"9" * 5000, b"NaN", b"null", b"true", b'"x"', b"[]",
         b"{}", b"inf", b"2024-01-01", b"[" * 3000, b'{"a":' * 3000, b"a." * 3000, b'"\\ud800"',
         b"\x00", b"\xff\xfe", b"\n", b"x" * 300)  # fmt: skip
ODD = (*NUMBERS, *REALS, 10**30, True, False, None, "", "x", "nan", "0", "\0", "../../x", "é" * 200,
       "x" * 5000, [], [0], [None], [[[]]], ["x"] * 300, {}, {"a": 1}, {"": []})  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A file with one to six changes to its bytes, most of them near its beginning."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        last = len(data) - 1
        at = draw(st.integers(0, min(last, 400)) | st.integers(0, last))
        draw(st.sampled_from((_flip, _put, _put, _real, _cut, _leave_out, _insert, _again)))(
            draw, data, at
        )
    return bytes(data)


def _flip(draw: st.DrawFn, data: bytearray, at: int) -> None:
    data[at] ^= draw(st.integers(1, 255))


def _put(draw: st.DrawFn, data: bytearray, at: int) -> None:
    shape, number = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(NUMBERS))
    size = struct.calcsize(shape)
    wrapped = number % 256**size
    data[at : at + size] = wrapped.to_bytes(size, "little" if shape[0] == "<" else "big")


def _real(draw: st.DrawFn, data: bytearray, at: int) -> None:
    shape = draw(st.sampled_from(("<f", ">f", "<d")))
    number = draw(st.sampled_from([one for one in REALS if abs(one) != 1e300]))
    data[at : at + struct.calcsize(shape)] = struct.pack(shape, number)


def _cut(draw: st.DrawFn, data: bytearray, at: int) -> None:
    del data[at:]


def _leave_out(draw: st.DrawFn, data: bytearray, at: int) -> None:
    del data[at : at + draw(st.integers(1, 40))]


def _insert(draw: st.DrawFn, data: bytearray, at: int) -> None:
    data[at:at] = draw(st.sampled_from(WORDS) | st.binary(min_size=1, max_size=12))


def _again(draw: st.DrawFn, data: bytearray, at: int) -> None:
    data[at:at] = data[at // 2 : at // 2 + draw(st.integers(1, 80))]


@st.composite
def altered(draw: st.DrawFn, plain: Any) -> Any:
    """Plain data in which one to four places hold something else, are gone or renamed."""
    for _ in range(draw(st.integers(1, 4))):
        plain = _alter(draw, plain)
    return plain


def _alter(draw: st.DrawFn, value: Any) -> Any:
    """A copy of `value`, changed in one place somewhere below it."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(ODD))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    other = dict(value) if isinstance(value, dict) else list(value)
    what = draw(st.sampled_from(("below", "below", "below", "gone", "more")))
    if what == "gone":
        del other[key]
    elif what == "below":
        other[key] = _alter(draw, value[key])
    elif isinstance(other, dict):
        other[draw(st.sampled_from(("x", "", "1", "\0", str(key) + "s")))] = other[key]
    else:
        other.append(other[key])
    return other
