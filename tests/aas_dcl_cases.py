"""What the tests of AAS-DCL share: the official arrays, and their names in our modules."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot_seg_aas_dcl import AASDCL

BLOCKS = {
    "Conv1": "network.first",
    "Conv1_": "network.first_support",
    "conv_fusion": "fuse",
    "getCorrConv": "refine.merge",
    "conv_fusion_": "refine.fuse",
    "Conv_1x1": "head",
    **{f"Conv{level}": f"network.encoder.{level - 2}" for level in range(2, 6)},
    **{f"sSE{level}": f"network.gates.{level - 1}" for level in range(1, 6)},
    **{f"Up{level}": f"network.ups.{level - 2}.convolutions" for level in range(2, 6)},
    **{f"Up_conv{level}": f"network.decoder.{level - 2}" for level in range(2, 6)},
}


def arrays(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as data:
        return {key: torch.from_numpy(np.asarray(data[key])) for key in data.files}


def our_weights(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights.<official name>` under our names; their `up` starts with the upsampling layer."""
    found = {}
    for key, value in official.items():
        if not key.startswith("weights."):
            continue
        block, *rest = key.removeprefix("weights.").split(".")
        if rest[0] in ("conv", "conv_ori", "up") and not block.startswith("sSE"):
            kind, index, *rest = rest
            rest = [str(int(index) - (kind == "up")), *rest]
        found[".".join([BLOCKS[block], *rest])] = value
    return found


def official_network(data: Mapping[str, Tensor]) -> AASDCL:
    """The network of the arrays, in eval mode, with all quirks."""
    width = data["weights.Conv1.conv.0.weight"].shape[0]
    rows, cols = (n // 16 for n in data["query_image"].shape[-2:])
    window = data["pool_window"].tolist()
    model = AASDCL(width=width, cells=[rows // window[0], cols // window[1]], compat="official")
    model.load_state_dict(our_weights(data))
    return model.eval()


def small(**options: object) -> AASDCL:
    torch.manual_seed(0)
    return AASDCL(**{"width": 2, "iterations": 2, **options})


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


Golden = Callable[[str], Path]
