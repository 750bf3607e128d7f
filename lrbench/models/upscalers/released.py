"""Published weights of upscalers: told by their layers' names, renamed to ours, and loaded completely or not at all.

What none of our networks has is opened by spandrel, an optional library (``pip install 'lrbench[sr]'``).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrbench.datasets.images import DataError
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.upscaler import DIV2K_MEAN, Upscaler
from lrbench.weights import read_weights

INSTALL = "pip install 'lrbench[sr]'"
"""What spandrel takes."""


@dataclass(frozen=True)
class Layout:
    """One way in which a family of networks was released.

    Attributes:
        telltales: names that only files of this layout have together.
        networks: of `UPSCALERS`, that files of this layout may hold.
        renaming: pattern of a layer's whole name, and our name of it; the first that fits counts, and a name that fits
            none is kept. ``{blocks}`` stands for the number of blocks; an empty name drops the layer.
        states_mean: the file holds the layer that subtracts the mean colour; networks of the same layers were also
            trained without it, or for pixels 0..1.
    """

    telltales: tuple[str, ...]
    networks: tuple[str, ...]
    renaming: tuple[tuple[str, str], ...] = ()
    states_mean: bool = False

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether a file has this layout."""
        known = all(name in tensors for name in self.telltales)
        return known and (not self.states_mean or _subtracts_our_mean(tensors))

    def renamed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a file by our names."""
        numbers = (re.match(r"(?:body|RRDB_trunk)\.(\d+)\.", name) for name in tensors)
        blocks = str(1 + max((int(number[1]) for number in numbers if number), default=-1))
        names = {name: self._ours(name, blocks) for name in tensors}
        return {ours: tensors[name] for name, ours in names.items() if ours}

    def _ours(self, name: str, blocks: str) -> str:
        layer, _, kind = name.rpartition(".")
        for pattern, ours in self.renaming:
            if found := re.fullmatch(pattern, layer):
                return f"{found.expand(ours).replace('{blocks}', blocks)}.{kind}" if ours else ""
        return name


EDSR_FRAME = (
    (r"body\.\d+", "conv_after_body"),
    ("head.0", "conv_first"),
    (r"tail\.0\.(\d+)", r"upsample.\1"),
    ("tail.1", "conv_last"),
    ("(sub|add)_mean", ""),
)
"""Around the body of EDSR and RCAN: released name, name here."""

LAYOUTS: tuple[Layout, ...] = (
    # SPSR; before RRDB, whose first layers it has
    Layout(
        ("f_HR_conv1.0.weight", "b_fea_conv.0.weight"),
        ("spsr", "spsr_tiny"),
        # one layer is stored twice, and the kernels of the gradient map never change
        (("HR_conv0_new.0", ""), ("get_g_nopadding", "")),
    ),
    # RRDB (first ESRGAN release)
    Layout(("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), ("rrdb", "rrdb6")),
    # RRDB (ESRGAN)
    Layout(
        ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"),
        ("rrdb", "rrdb6"),
        (
            (r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0"),
            ("conv_first", "model.0"),
            ("trunk_conv", "model.1.sub.{blocks}"),
            ("upconv1", "model.3"),
            ("upconv2", "model.6"),
            ("HRconv", "model.8"),
            ("conv_last", "model.10"),
        ),
    ),
    # RRDB (BasicSR)
    Layout(
        ("conv_first.weight", "body.0.rdb1.conv1.weight"),
        ("rrdb", "rrdb6"),
        (
            (r"body\.(\d+)\.rdb(\d)\.conv(\d)", r"model.1.sub.\1.RDB\2.conv\3.0"),
            ("conv_first", "model.0"),
            ("conv_body", "model.1.sub.{blocks}"),
            ("conv_up1", "model.3"),
            ("conv_up2", "model.6"),
            ("conv_hr", "model.8"),
            ("conv_last", "model.10"),
        ),
    ),
    # RCAN (BasicSR)
    Layout(("conv_first.weight", "body.0.residual_group.0.rcab.0.weight"), ("rcan",)),
    # RCAN
    Layout(
        ("head.0.weight", "body.0.body.0.body.3.conv_du.0.weight"),
        ("rcan",),
        (
            (r"body\.(\d+)\.body\.(\d+)\.body\.(0|2)", r"body.\1.residual_group.\2.rcab.\3"),
            (r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0", r"body.\1.residual_group.\2.rcab.3.attention.1"),
            (r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2", r"body.\1.residual_group.\2.rcab.3.attention.3"),
            (r"body\.(\d+)\.body\.\d+", r"body.\1.conv"),
            *EDSR_FRAME,
        ),
        states_mean=True,
    ),
    # EDSR
    Layout(
        ("head.0.weight", "body.0.body.0.weight"),
        ("edsr", "edsr_wide"),
        (
            (r"body\.(\d+)\.body\.0", r"body.\1.conv1"),
            (r"body\.(\d+)\.body\.2", r"body.\1.conv2"),
            *EDSR_FRAME,
        ),
        states_mean=True,
    ),
    # EDSR (BasicSR)
    Layout(("conv_after_body.weight", "body.0.conv1.weight"), ("edsr", "edsr_wide")),
    # MSRResNet (BasicSR)
    Layout(("conv_hr.weight", "upconv1.weight", "body.0.conv1.weight"), ("msrresnet",)),
    # SRVGG
    Layout(("body.0.weight", "body.1.weight", "body.2.weight"), ("srvgg", "srvgg32", "srvgg_tiny")),
)
"""Asked in this order."""


def _subtracts_our_mean(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's first layer takes the mean colour of DIV2K from pixels 0..255."""
    shift = tensors.get("sub_mean.bias", torch.zeros(3)).float()
    return shift.shape == (3,) and torch.allclose(shift, -255 * torch.tensor(DIV2K_MEAN), rtol=1e-3)


@dataclass(frozen=True)
class Released:
    """Weights that are one of our networks.

    Attributes:
        name: in `UPSCALERS`.
        scale: factor.
        tensors: by our names.
    """

    name: str
    scale: int
    tensors: Mapping[str, Tensor]

    def load(self) -> Upscaler:
        """The network with these weights, in eval mode."""
        network = UPSCALERS[self.name].build(self.scale)
        network.load_state_dict(self.tensors)
        return network.eval()


def recognise(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the upscaler that a file holds exactly, tensor by tensor; None if it is none of ours."""
    found = identify(tensors)
    return found.name if found else None


def identify(tensors: Mapping[str, Tensor]) -> Released | None:
    """Find which upscaler a file holds.

    Args:
        tensors: of a file, by its names.

    Returns:
        The weights by our names; None if no network has exactly these layers in these shapes.
    """
    layout = next((layout for layout in LAYOUTS if layout.fits(tensors)), None)
    if layout is None:
        return None
    ours = layout.renamed(tensors)
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    for name in layout.networks:
        for scale in UPSCALERS[name].scales:
            with torch.device("meta"):  # only names and shapes are wanted
                state = UPSCALERS[name].build(scale).state_dict()
            if shapes == {key: value.shape for key, value in state.items()}:
                return Released(name, scale, ours)
    return None


def load_upscaler(path: Path) -> Upscaler:
    """Open published weights: as one of our networks, otherwise through spandrel.

    Raises:
        DataError: not a file of tensors; no network has these layers; or spandrel is needed and cannot be had.
    """
    found = identify(read_weights(path))
    return found.load() if found else load_with_spandrel(path)


class Community(Upscaler):
    """A network of spandrel's, in eval or training mode, with gradients.

    Args:
        descriptor: spandrel's description of it. Calling that itself would run without gradients and clamp.
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__(int(descriptor.scale))
        self.model = descriptor.model
        self.requirements = descriptor.size_requirements

    def details(self, pixels: Tensor) -> Tensor:
        """(B, 3, h, w) -> (B, 3, scale h, scale w); pads by repeated edges what the network cannot take."""
        height, width = pixels.shape[-2:]
        right, bottom = self.requirements.get_padding(width, height)
        # a copy in any case: some networks, RCAN among them, write to their input
        padded = F.pad(pixels, (0, right, 0, bottom), "replicate") if right or bottom else pixels.clone()
        picture: Tensor = self.model(padded)
        return picture[..., : self.scale * height, : self.scale * width]


def load_with_spandrel(path: Path) -> Upscaler:
    """Open weights of a community network; one of ours in disguise is taken by us.

    Raises:
        DataError: spandrel is missing, refuses the file, or finds something else than an upscaler of RGB pictures.
    """
    spandrel = _spandrel(path)
    loader = spandrel.ModelLoader()
    try:
        tensors = loader.load_state_dict_from_file(path)
        # spandrel takes SPSR for ESRGAN, and dies
        if found := identify(tensors):
            return found.load()
        descriptor = loader.load_from_state_dict(tensors)
    except Exception as error:  # spandrel, its networks and torch raise many kinds
        first = (str(error) or type(error).__name__).split("\n", 1)[0]
        raise DataError(f"weights {path}: no upscaler that lrbench or spandrel knows ({first})") from None
    is_upscaler = isinstance(descriptor, spandrel.ImageModelDescriptor) and descriptor.scale > 1
    if not is_upscaler or (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        raise DataError(f"weights {path}: {descriptor.architecture.name}, which does not enlarge RGB pictures")
    return Community(descriptor).eval()


def _spandrel(path: Path) -> ModuleType:
    try:
        return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        if error.name == "spandrel":
            raise DataError(
                f"weights {path}: none of lrbench's own upscalers; opening others needs spandrel: {INSTALL}"
            ) from None
        reason: Exception = error
    except (ImportError, RuntimeError) as error:
        reason = error
    raise DataError(
        f"weights {path}: spandrel cannot be imported ({reason}); it needs the torchvision that belongs to torch "
        f"{torch.__version__}: {INSTALL}"
    )
