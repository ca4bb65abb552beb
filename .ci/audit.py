"""Fail on known vulnerabilities of what is installed; say so when that cannot be found out.

pip-audit asks a service that CI may not reach, or that knows none of the packages, and calls both
clean. So one distribution is asked about first, and only answers count.
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any


def answers(*words: str, seconds: float) -> list[dict[str, Any]]:
    """What pip-audit was told about each distribution; nothing when it did not come to an end."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "found.json")
        command = ["pip-audit", "--progress-spinner=off", "--timeout=5", "--format=json"]
        try:
            subprocess.run([*command, f"--output={target}", *words], timeout=seconds,
                           capture_output=True, check=False)  # fmt: skip
        except (subprocess.TimeoutExpired, FileNotFoundError):
            return []
        if not target.exists():
            return []
        found = json.loads(target.read_text(encoding="utf-8"))["dependencies"]
    return [one for one in found if "vulns" in one]  # the others were skipped


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder, "one.txt")
        one.write_text(f"numpy=={version('numpy')}\n", encoding="utf-8")
        if not answers("--requirement", str(one), "--no-deps", "--disable-pip", seconds=15):
            print("pip-audit: not installed, or its service gives no answer; nothing was audited")
            return
    found = answers("--local", "--skip-editable", seconds=300)
    if not found:
        print("pip-audit: its service stopped answering; nothing was audited")
        return
    known = [
        f"{one['name']} {one['version']}: {hole['id']}" for one in found for hole in one["vulns"]
    ]
    print(f"pip-audit: {len(found)} distributions audited, {len(known)} known vulnerabilities")
    if known:
        sys.exit("\n".join(known))


if __name__ == "__main__":
    main()
