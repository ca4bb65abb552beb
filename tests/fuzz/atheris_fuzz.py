"""Fuzzing led by what code an input reaches; needs `pip install "fewshot-seg[fuzz]"`.

python tests/fuzz/atheris_fuzz.py nifti -max_total_time=600
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fewshot_seg"]):
    from fuzz_law import LARGEST, obey
    from fuzz_targets import TARGETS


def main() -> None:
    """The first word is a target's name, the others are options of libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name one of: {', '.join(TARGETS)}")
    target = TARGETS[sys.argv[1]]()

    def one(content: bytes) -> None:
        packed = target.pack(content)
        if len(packed) <= LARGEST:
            obey(target.name, target.read, packed)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        words = [sys.argv[0], corpus, f"-max_len={LARGEST}", "-rss_limit_mb=0", *sys.argv[2:]]
        atheris.Setup(words, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
