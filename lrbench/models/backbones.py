"""The backbones, by name."""

from __future__ import annotations

from lrbench.models.backbone import BackboneSpec
from lrbench.models.hrnet import HRNetSpec
from lrbench.models.litehrnet import LiteHRNetSpec
from lrbench.models.resnet import ResNetSpec

BACKBONES: dict[str, BackboneSpec] = {
    # narrow and shallow, for processors: our own widths and depths, not a published network
    "hrnet_w16": HRNetSpec(16, stem=32, bottlenecks=2, modules=(1, 2, 2), blocks=2),
    "hrnet_w32": HRNetSpec(32),
    "hrnet_w48": HRNetSpec(48),
    # a ResNet-18 of half the width, our own stand-in for processors
    "resnet18_w32": ResNetSpec((2, 2, 2, 2), width=32, deconvolution=64, bottleneck=False),
    "resnet50": ResNetSpec((3, 4, 6, 3)),
    "resnet101": ResNetSpec((3, 4, 23, 3)),
    "resnet152": ResNetSpec((3, 8, 36, 3)),
    "litehrnet18": LiteHRNetSpec((2, 4, 2)),
    "litehrnet30": LiteHRNetSpec((3, 8, 3)),
}
"""All that ``--backbone`` takes."""


def hrnet_spec(name: str, method: str) -> HRNetSpec:
    """The HRNet of this name, for methods that rebuild its stages.

    Raises:
        ValueError: another kind of backbone.
    """
    spec = BACKBONES[name]
    if not isinstance(spec, HRNetSpec):
        known = [n for n, s in BACKBONES.items() if isinstance(s, HRNetSpec)]
        raise ValueError(f"{method} has no form on {name}; choose one of {', '.join(known)}")
    return spec
