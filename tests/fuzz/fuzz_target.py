"""What is fuzzed: a reader, files that it takes, and what those files mean."""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from fuzz_damage import altered, damaged
from fuzz_law import LARGEST
from hypothesis import reject
from hypothesis import strategies as st


@dataclass(frozen=True)
class Codec:
    """Files as plain data and back."""

    seeds: Sequence[bytes]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def json_codec(seeds: Sequence[bytes]) -> Codec:
    return Codec(seeds, json.loads, lambda plain: json.dumps(plain).encode())


def lines_codec(seeds: Sequence[bytes]) -> Codec:
    """JSON, a value a line."""
    return Codec(
        seeds,
        lambda content: [json.loads(line) for line in content.splitlines()],
        lambda plain: "".join(json.dumps(one) + "\n" for one in plain).encode(),
    )


def toml_codec(seeds: Sequence[bytes]) -> Codec:
    return Codec(
        seeds,
        lambda content: tomllib.loads(content.decode()),
        lambda plain: tomli_w.dumps(plain).encode(),
    )


@dataclass(frozen=True)
class Target:
    """A reader of one file.

    name: what the file is called.   read: is given its path, in a folder of its own.
    seeds: files that `read` takes.   codec: for changes to what they mean, None for bytes only.
    pack: what is done to a changed file, such as to compress it.
    """

    name: str
    read: Callable[[Path], object]
    seeds: Sequence[bytes]
    codec: Codec | None = None
    pack: Callable[[bytes], bytes] = bytes

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Damaged files, half of them by their bytes and half by their meaning."""
        ways = [damaged(self.seeds).map(self.pack)]
        if self.codec is not None:
            ways.append(self._changed(self.codec).map(self.pack))
        return st.one_of(ways).filter(lambda content: len(content) <= LARGEST)

    def _changed(self, codec: Codec) -> st.SearchStrategy[bytes]:
        @st.composite
        def changed(draw: st.DrawFn) -> bytes:
            plain = codec.decode(draw(st.sampled_from(codec.seeds)))
            try:
                return codec.encode(draw(altered(plain)))
            except Exception:  # what the format itself cannot hold
                reject()

        return changed()
