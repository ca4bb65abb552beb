"""The Ray cluster that cells are done on: found or started, and how many cells fit on it."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fewshot_seg.errors import OptionError, check_choice

CLIENT = "ray://"
"""How addresses of Ray Client begin, which cannot tell when a task begins."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one cell takes of a node. Raises OptionError for what no node could give.

    gpus: 0 for none, a fraction for several cells on a GPU, or a whole number.
    cpus: cores, and threads of torch.
    """

    gpus: float = 0.0
    cpus: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus % 1):
            raise OptionError(
                "gpus_per_run is 0, a fraction as 0.25 for four cells on a GPU, or a whole number; "
                f"got {self.gpus}"
            )
        if self.cpus < 1:
            raise OptionError(f"cpus_per_run is 1 or more; got {self.cpus}")

    def fit(self, resources: Mapping[str, float]) -> int:
        """How many cells a node with these resources can do at once."""
        found = int(resources.get("CPU", 0)) // self.cpus
        if self.gpus > 1:
            found = min(found, int(resources.get("GPU", 0) // self.gpus))
        elif self.gpus:  # a cell has its share of one GPU, never of two
            found = min(found, int(resources.get("GPU", 0)) * int(1 / self.gpus + 1e-9))
        return found


def import_ray() -> Any:
    """The package. Raises OptionError when it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise OptionError('--engine ray needs Ray: pip install "fewshot-seg[cluster]"') from error
    return ray


@contextmanager
def connected() -> Iterator[Any]:
    """Ray, connected: as it is where the program has done so, else by Ray's own rules.

    Those are the address in RAY_ADDRESS, else the cluster that runs on this machine, else one that
    is started here and ends with the context. Raises OptionError when there is none.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray)
    try:
        if ray.util.client.ray.is_connected():
            raise OptionError(
                f"a cluster cannot be used through Ray Client ({CLIENT}...); start the grid on a "
                "node of the cluster, with RAY_ADDRESS=auto"
            )
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any) -> None:
    address = os.environ.get("RAY_ADDRESS")
    if address and address.startswith(CLIENT):
        raise OptionError(
            f"RAY_ADDRESS={address}: Ray Client is not enough; start the grid on a node of the "
            "cluster, with RAY_ADDRESS=auto"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours tells nobody
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray's own have no common class
        where = f"reached at RAY_ADDRESS={address}" if address else "reached or started"
        raise OptionError(
            f"no Ray cluster could be {where}: {error} (one that was started with tokens also "
            "needs RAY_AUTH_MODE=token here)"
        ) from error


def room(ray: Any, needs: Needs) -> int:
    """How many cells the living nodes can do at once."""
    return sum(needs.fit(resources) for resources in _nodes(ray))


def check_room(ray: Any, needs: Needs) -> None:
    """Raise OptionError unless some node is large enough for a cell."""
    nodes = _nodes(ray)
    if any(needs.fit(resources) for resources in nodes):
        return
    gpus = max((one.get("GPU", 0) for one in nodes), default=0)
    cpus = max((one.get("CPU", 0) for one in nodes), default=0)
    raise OptionError(
        f"a cell needs {needs.gpus:g} GPUs and {needs.cpus} CPUs of one node (gpus_per_run, "
        f"cpus_per_run); the cluster has {len(nodes)} nodes, with at most {gpus:g} GPUs and "
        f"{cpus:g} CPUs on one"
    )


def device_for(ray: Any, needs: Needs, device: str | None) -> str:
    """Where cells compute, which must agree with what they reserve. Raises OptionError."""
    if device is not None:
        check_choice("device", device, ("cpu", "cuda"))  # which of the GPUs is Ray's choice
    if needs.gpus:
        if device == "cpu":
            raise OptionError(
                f"device cpu leaves the GPUs idle that gpus_per_run={needs.gpus:g} reserves; "
                "leave one of the two out"
            )
        return "cuda"
    gpus = sum(one.get("GPU", 0) for one in _nodes(ray))
    if device == "cuda" or (device is None and gpus):
        raise OptionError(
            f"gpus_per_run is 0 and the cluster has {gpus:g} GPUs: give each cell its share, as "
            "--gpus-per-run 1 or 0.25, or say --device cpu"
        )
    return "cpu"


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
