"""SimCC (SimDR): x and y as two classifications over bins finer than a pixel, without heatmap and refinement.

Two forms are released: ``simdr`` with smoothed one-hot labels and ``sa-simdr`` ("SimDR*") with Gaussian ones.
Deviations: the mirrored pass of the flip test is shifted by split - 1 bins instead of always 1 (`flip_shift=released`
brings that back); the map of a ResNet is cut to the crop where sizes do not divide, as everywhere here. Nothing is
released at 64x48 and 128x96; the defaults there are those of 64x64 and 128x128, with smoothing 0.1.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from lrbench.codecs.simcc import AxisBins, Bins, FlipShift, log_probabilities
from lrbench.geometry import Frame, Size
from lrbench.losses import BinLoss, bin_loss
from lrbench.method import Method, Stage
from lrbench.models.backbone import Fusion
from lrbench.models.backbones import BACKBONES
from lrbench.models.heads import bin_network
from lrbench.models.resnet import ResNetSpec
from lrbench.structures import Rescoring

PAPER = "Li et al., ECCV 2022, arXiv:2107.03332"
REPORTED: dict[str, dict[str, object]] = {
    "SimCC": {},
    "SimCC (SimDR) on HRNet": {"labels": "simdr"},
    "SimCC (SimDR) on SimpleBaseline": {"labels": "simdr"},
    "SimCC (SimDR*) on HRNet": {"labels": "sa-simdr"},
    "SimCC (SimDR*) on SimpleBaseline": {"labels": "sa-simdr"},
    "SimCC (Gaussian, 3 deconv)": {"labels": "sa-simdr", "sigma": 6.0, "split": 2.0, "upsampling": "deconv"},
}
"""Names under which papers report it, and the settings they stand for."""

Form = Literal["simdr", "sa-simdr"]

SMOOTHING = {("hrnet_w32", "128x128"): 0.2, ("resnet101", "128x128"): 0.2, ("resnet101", "256x192"): 0.4}
"""Where the released files have another smoothing than 0.1."""


def build(
    size: Size,
    backbone: str = "hrnet_w32",
    labels: Form = "simdr",
    split: float | None = None,
    smoothing: float | None = None,
    sigma: float | None = None,
    loss: BinLoss | None = None,
    upsampling: Literal["deconv", "none"] = "deconv",
    flip_shift: FlipShift = "exact",
    colour: Literal["rgb", "bgr"] = "rgb",
    fusion: Fusion = "auto",
) -> Method[Bins]:
    """Compose SimCC; the defaults are those of the released files per size and backbone (released configuration files).

    Args:
        size: of the crop.
        backbone: of the network.
        labels: ``simdr`` one-hot with smoothing, ``sa-simdr`` Gaussian.
        split: bins per px; released: 3 at 64x64 (ResNet-50: and at 128x128), 2 above, 1.5 for HRNets with Gaussian
            labels at 384x288.
        smoothing: of one-hot labels; released: 0.1 nearly everywhere, see `SMOOTHING`.
        sigma: of Gaussian labels, bins; released: 4 at 256x192, at 384x288 4 on HRNets and 6 on ResNets; ours below 128
            rows: 3, which is a pixel.
        loss: see `lrbench.losses.BinLoss`; released: ``nmt`` for one-hot labels, but ``nmtnorm`` on ResNet-101 and
            ResNet-152 at 384x288; ``kl`` for Gaussian ones.
        upsampling: ``none`` leaves out the three deconvolutions of a ResNet and reads several stride-32 maps per
            keypoint instead: 28 from 256 rows on, 32 below, as released.
        flip_shift: see `lrbench.codecs.simcc.FlipShift`.
        colour: ``bgr`` for the official checkpoints on ResNets, which were trained on BGR pictures.
        fusion: see `lrbench.models.backbone.Fusion`.

    Raises:
        ValueError: ``upsampling=none`` on a backbone that does not up-sample, or bins that are not whole.
    """
    spec = BACKBONES[backbone]
    resnet, gaussian = isinstance(spec, ResNetSpec), labels == "sa-simdr"
    if upsampling == "none" and not resnet:
        raise ValueError(f"upsampling=none: {backbone} has no up-sampling to leave out; choose a ResNet or deconv")
    if split is None:
        split = default_split(size, backbone, gaussian=gaussian)
    if smoothing is None:
        smoothing = SMOOTHING.get((backbone, str(size)), 0.1)
    if sigma is None:
        sigma = 3.0 if size.height < 128 else 6.0 if resnet and size.height >= 384 else 4.0
    if loss is None:
        deepest = backbone in ("resnet101", "resnet152") and size.height >= 384
        loss = "kl" if gaussian else "nmtnorm" if deepest else "nmt"
    fusion = spec.resolve_fusion(fusion, size)
    frame = Frame(size, "biased")
    codec = AxisBins(
        frame=frame,
        split=split,
        labels="gaussian" if gaussian else "one-hot",
        smoothing=smoothing,
        sigma=sigma,
        flip_shift=flip_shift,
    )
    epochs, milestones = (140, (90, 120)) if resnet else (210, (170, 200))
    return Method(
        name="simcc",
        paper=PAPER,
        backbone=backbone,
        frame=frame,
        codec=codec,
        build_model=partial(
            bin_network,
            backbone=backbone,
            size=size,
            fusion=fusion,
            bins=codec.bins,
            pack=log_probabilities,
            upsampled=upsampling == "deconv",
            per_keypoint=1 if upsampling == "deconv" else 28 if size.height >= 256 else 32,
            bgr=colour == "bgr",
        ),
        stages=(Stage(epochs=epochs, loss=partial(bin_loss, form=loss), milestones=milestones),),
        settings={"split": split, "smoothing": smoothing, "sigma": sigma, "loss": loss, "fusion": fusion},
        rescoring=Rescoring(confident=confident(size, gaussian=gaussian)),
    )


def default_split(size: Size, backbone: str, *, gaussian: bool) -> float:
    """Bins per px: the released ones, extended to sizes and backbones without any."""
    if size.height < (256 if backbone == "resnet50" else 128):
        return 3.0
    resnet = isinstance(BACKBONES[backbone], ResNetSpec)
    return 1.5 if gaussian and size.height >= 384 and not resnet else 2.0


def confident(size: Size, *, gaussian: bool) -> float:
    """Score from which a keypoint counts for its person: probabilities of a bin, small where bins are many.

    Released: 0.02 at 64x64 and 128x128, 0.01 at 256x192, 0.005 for Gaussian labels at 384x288.
    """
    if size.height < 256:
        return 0.02
    return 0.005 if gaussian and size.height >= 384 else 0.01
