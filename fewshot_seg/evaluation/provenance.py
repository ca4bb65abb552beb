"""Where results come from: versions, commit, device, date."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import fewshot_seg
from fewshot_seg._version import __version__
from fewshot_seg.about import about
from fewshot_seg.registry import Registry

RECONSTRUCTED = "RECONSTRUCTED, no reproduction of the paper"
PACKAGES = ("torch", "timm", "monai", "numpy", "scipy", "nibabel")


def provenance(
    device: torch.device | str = "cpu", method: object = None, precision: str = "32"
) -> dict[str, str]:
    """Plain facts about this run, without any path or host name; values are text.

    status: for a registered method that is a reconstruction, says so.
    precision: "32" or "bf16", in which it was computed.
    commit: of the source checkout the library runs from, with "+changes" when files differ from
        it; "none" for an installed package.
    """
    return {
        **_status(method),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "precision": precision,
        "commit": _commit() or "none",
        "python": platform.python_version(),
        "fewshot_seg": __version__,
        **{name: _version(name) for name in PACKAGES},
    }


def _status(method: object) -> dict[str, str]:
    recipe = getattr(method, "recipe", None)
    claims = () if recipe is None else Registry("method").providers().get(recipe.method, ())
    if not any(about(claim.entry).reconstructed for claim in claims):
        return {}
    return {"status": RECONSTRUCTED}


def device_name(device: torch.device | str) -> str:
    """`cpu`, or a GPU by its model name."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    root = Path(fewshot_seg.__file__).resolve().parent.parent
    if not (root / ".git").exists():  # an environment inside somebody else's checkout
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git(root, "status", "--porcelain") else "")


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers; None where git is missing or the checkout has no commit yet."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
