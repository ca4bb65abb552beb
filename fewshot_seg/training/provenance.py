"""Where numbers come from: versions, commit, device."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fewshot_seg._version import __version__

PACKAGES = ("torchvision", "timm", "numpy", "scipy", "monai", "lightning-fabric")


def versions() -> dict[str, str]:
    """Versions of Python, this library and what its numbers depend on."""
    # torch itself also knows for which CUDA it was built.
    found = {"python": platform.python_version(), "fewshot-seg": __version__}
    found["torch"] = str(torch.__version__)
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of the checkout this library runs from, `+changes` behind it when it differs.

    None for an installed copy, or when git is not there.
    """
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    head = _git(here.parent, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def device_name(device: torch.device) -> str:
    """`cpu` or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
