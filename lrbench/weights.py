"""Weights: reading them safely, by name, with a word on what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn

from lrbench.datasets.images import DataError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch checkpoint that holds nothing but tensors.

    Raises:
        DataError: missing, damaged, or anything that would have to run code to be loaded.
    """
    if not path.is_file():
        raise DataError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise many kinds for damaged or unsafe files
        first = str(error).split("\n", 1)[0]
        raise DataError(f"weights {path}: refused, not a file of tensors ({first})") from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise DataError(f"weights {path}: refused, holds other things than named tensors")
    return {str(k).removeprefix("module."): v for k, v in loaded.items()}


def load_weights(network: nn.Module, path: Path, method: str) -> None:
    """Load a file into a network; every tensor has to fit.

    Raises:
        DataError: names or shapes differ, so the file belongs to another method, backbone or size.
    """
    tensors, state = read_weights(path), network.state_dict()
    missing = [k for k in state if k not in tensors]
    extra = [k for k in tensors if k not in state]
    shapes = [k for k, v in tensors.items() if k in state and state[k].shape != v.shape]
    if missing or extra or shapes:
        example = (shapes or missing or extra)[0]
        raise DataError(
            f"weights {path}: do not fit {method} as asked for ({len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape, for example {example}); check method, backbone, size and settings"
        )
    network.load_state_dict(tensors)


def pretrained(backbone: str) -> dict[str, Tensor] | None:
    """The shipped starting weights of a backbone, or None where there are none."""
    data = pretrained_file(backbone)
    if data is None:
        return None
    from safetensors.torch import load

    return {k: v.float() if v.is_floating_point() else v for k, v in load(data).items()}


def pretrained_file(backbone: str) -> bytes | None:
    """The shipped file itself, for its hash."""
    resource = files("lrbench.models") / "pretrained" / f"{backbone}.safetensors"
    return resource.read_bytes() if resource.is_file() else None
