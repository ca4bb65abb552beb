"""Reading a checkpoint and fitting it to a network: nothing missing, nothing left over."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from fewshot_seg.errors import CheckpointError, DataError, OptionError, did_you_mean

_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
_HEADS = ("classifier.", "aux_classifier.", "fc.", "head.", "head_dist.", "pre_logits.")
"""Classifiers of torchvision and timm; a file may hold them, we never use them."""


def is_file(pretrained: str) -> bool:
    """Whether `pretrained` is meant as the path of a file rather than as a word."""
    path = Path(pretrained)
    return path.suffix in _SUFFIXES or path.exists() or path.name != pretrained


def check_source(pretrained: str, *, words: tuple[str, ...], what: str) -> None:
    """Raises OptionError unless `pretrained` is one of `words` or looks like a file."""
    if pretrained in words or is_file(pretrained):
        return
    raise OptionError(
        f"{what} has no pretrained weights '{pretrained}'{did_you_mean(pretrained, words)}; "
        f"give one of {', '.join(words)}, or the path of a checkpoint"
    )


def read_state(path: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of any torch file (read without running its code).

    Raises DataError when it cannot be opened, CheckpointError when it is damaged or holds
    something else than named tensors.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(
            f"checkpoint '{path}' cannot be opened ({error.strerror or error}); check the path"
        ) from error
    # Readers of damaged bytes stumble in many ways: UnpicklingError, EOFError, KeyError, ...
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0][:120]
        raise CheckpointError(
            f"checkpoint '{path}' is damaged or no file of weights; copy it again, or save only "
            f"the state_dict ({type(error).__name__}: {first_line})"
        ) from error
    return _unwrap(found, path)


def _unwrap(found: Any, path: str) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    named = isinstance(found, Mapping) and all(isinstance(key, str) for key in found)
    if not named or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"checkpoint '{path}' holds no state_dict: a mapping from names to tensors, "
            f"bare or under one of {', '.join(_WRAPPERS)}"
        )
    return dict(found)


def fit(
    state: Mapping[str, Tensor],
    network: nn.Module,
    *,
    source: str,
    what: str,
    whole: Callable[[], set[str]] = set,
) -> None:
    """Load `state` into `network`, whose names may stand behind prefixes such as "backbone.".

    Classifiers, and what else stands in `whole()` but not in `network`, are left out; a first
    convolution for 3 channels is adapted; batch counters, which nothing reads, may be missing.
    Raises CheckpointError listing the first few names that are missing, left over or misshapen.
    """
    wanted = network.state_dict()
    renamed, extra = _rename(state, wanted, source)
    extra = [key for key in extra if not key.startswith(_HEADS)]
    if extra:
        known = whole()
        extra = [key for key in extra if key not in known]
    missing = [
        key for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")
    ]
    loaded = {key: _adapt(tensor, wanted[key]) for key, tensor in renamed.items()}
    misshapen = [
        f"{key} is {_shape(loaded[key])} but should be {_shape(wanted[key])}"
        for key in loaded
        if loaded[key].shape != wanted[key].shape
    ]
    faults = [
        _few("missing", missing),
        _few("unexpected", extra),
        _few("misshapen", misshapen),
    ]
    if any(faults):
        raise CheckpointError(
            f"checkpoint '{source}' does not fit {what}: {'; '.join(filter(None, faults))}"
        )
    network.load_state_dict(loaded, strict=False)


def _rename(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], list[str]]:
    """What belongs to `wanted`, under its names, and the names (without prefixes) of the rest."""
    renamed: dict[str, Tensor] = {}
    extra: list[str] = []
    for key, tensor in state.items():
        name = _without_prefixes(key, wanted)
        # timm's feature networks name "stages.0" as "stages_0".
        name = name if name in wanted else name.replace(".", "_", 1)
        if name not in wanted:
            extra.append(_without_prefixes(key, wanted))
        elif name in renamed:
            raise CheckpointError(f"checkpoint '{source}' holds two networks: '{name}' comes twice")
        else:
            renamed[name] = tensor
    return renamed, extra


def _without_prefixes(key: str, wanted: Mapping[str, Tensor]) -> str:
    while key not in wanted and key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return key


def _adapt(tensor: Tensor, wanted: Tensor) -> Tensor:
    """A first convolution made for 3 channels, for as many as `wanted` has."""
    if tensor.shape == wanted.shape or tensor.ndim != 4 or tensor.shape[1] != 3:
        return tensor
    others_agree = tensor.shape[0] == wanted.shape[0] and tensor.shape[2:] == wanted.shape[2:]
    return adapt_input_conv(wanted.shape[1], tensor) if others_agree else tensor


def _shape(tensor: Tensor) -> str:
    return "x".join(str(length) for length in tensor.shape) or "a number"


def _few(fault: str, items: Iterable[str]) -> str:
    listed = list(items)
    if not listed:
        return ""
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"{fault} {', '.join(listed[:3])}{more}"
