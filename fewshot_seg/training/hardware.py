"""Where and in which precision a run computes."""

from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from fewshot_seg.errors import TrainingError
from fewshot_seg.precision import computes_in_bf16
from fewshot_seg.training.config import TrainConfig

FabricPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


def choose_accelerator(wanted: str) -> Literal["cpu", "cuda"]:
    """Raises TrainingError when CUDA is asked for and there is none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "accelerator 'cuda' was asked for but torch sees no CUDA device; "
            "use accelerator 'auto' or 'cpu', or install a CUDA build of torch"
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, accelerator: str) -> FabricPrecision:
    """Raises TrainingError for 16 bits on a CPU."""
    if wanted == "auto":
        wanted = "bf16" if computes_in_bf16(accelerator) else "32"
    if wanted == "16" and accelerator == "cpu":
        raise TrainingError(
            "precision '16' needs a CUDA device; on a CPU use 'bf16', '32' or 'auto'"
        )
    known: dict[str, FabricPrecision] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    return known[wanted]


def make_fabric(config: TrainConfig) -> Fabric:
    """A launched Fabric. With several devices this starts the script again once per further device
    (not under torchrun, which has done so), and each process goes through the whole of it.
    """
    accelerator = choose_accelerator(config.accelerator)
    if accelerator == "cuda" and config.devices > torch.cuda.device_count():
        raise TrainingError(
            f"{config.devices} devices were asked for but torch sees {torch.cuda.device_count()}"
        )
    # A loss may be absent in some episodes (no foreground), so a parameter may get no gradient.
    # Where that never happens, torch says once that looking for such parameters was needless.
    strategy = DDPStrategy(find_unused_parameters=True) if config.devices > 1 else "auto"
    fabric = Fabric(
        accelerator=accelerator,
        devices=config.devices,
        strategy=strategy,
        precision=choose_precision(config.precision, accelerator),
    )
    fabric.launch()
    return fabric
