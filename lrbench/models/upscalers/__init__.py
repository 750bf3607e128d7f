"""Super-resolution networks, by name: RGB in [0, 1] in and out, each side larger by a whole factor.

Weights of published networks are opened by `lrbench.models.upscalers.released`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lrbench.models.upscalers.compact import ESPCN, FSRCNN, SRVGG
from lrbench.models.upscalers.edsr import edsr, rcan
from lrbench.models.upscalers.natsr import NatSR
from lrbench.models.upscalers.rrdb import RRDBNet
from lrbench.models.upscalers.span import SPAN
from lrbench.models.upscalers.spsr import SPSR
from lrbench.models.upscalers.srresnet import MSRResNet, SRResNet
from lrbench.models.upscalers.upscaler import Resampling, Residual, Upscaler


@dataclass(frozen=True, kw_only=True)
class UpscalerSpec:
    """One way to enlarge pictures.

    Attributes:
        summary: one line for lists.
        paper: citation.
        network: makes it for a scale.
        scales: that it can be built for.
        learned: has parameters.
        narrow: name of the upscaler that stands in for it on a processor; empty where there is none, so that it stays
            itself.
        judged: it is another entry's network by the name it has when a second network judges its pictures.
    """

    summary: str
    paper: str
    network: Callable[[int], Upscaler]
    scales: tuple[int, ...] = (2, 4)
    learned: bool = True
    narrow: str = ""
    judged: bool = False

    def build(self, scale: int = 4, residual: Residual = "released") -> Upscaler:
        """The network, with torch's initialisation.

        Args:
            scale: one of `scales`.
            residual: what its details are added to; ``bicubic`` to train from scratch.

        Raises:
            ValueError: another scale, or a bicubic start without parameters.
        """
        if scale not in self.scales:
            raise ValueError(f"scale {scale} is not available; choose one of {', '.join(map(str, self.scales))}")
        network = self.network(scale)
        if residual == "bicubic":
            network.start_as_bicubic()
        return network


_REAL_ESRGAN = "Wang et al., Real-ESRGAN, ICCVW 2021, arXiv:2107.10833"
_EDSR = "Lim et al., EDSR, CVPRW 2017, arXiv:1707.02921"
_ESRGAN = "Wang et al., ESRGAN, ECCVW 2018, arXiv:1809.00219"
_SPAN = "Wan et al., SPAN, CVPRW 2024, arXiv:2311.12770"
_SPSR = "Ma et al., SPSR, CVPR 2020, arXiv:2003.13081"

UPSCALERS: dict[str, UpscalerSpec] = {
    "bicubic": UpscalerSpec(
        summary="cubic convolution, no parameters: the control of every table",
        paper="Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981",
        network=partial(Resampling, kernel="bicubic"),
        learned=False,
    ),
    "lanczos": UpscalerSpec(
        summary="windowed sinc of three lobes, no parameters",
        paper="Duchon, Journal of Applied Meteorology 18(8), 1979",
        network=partial(Resampling, kernel="lanczos"),
        learned=False,
    ),
    "espcn": UpscalerSpec(
        summary="three convolutions and a pixel shuffle",
        paper="Shi et al., ESPCN, CVPR 2016, arXiv:1609.05158",
        network=ESPCN,
    ),
    "fsrcnn": UpscalerSpec(
        summary="seven narrow convolutions and a deconvolution",
        paper="Dong et al., FSRCNN, ECCV 2016, arXiv:1608.00367",
        network=FSRCNN,
    ),
    # 32 channels, eight convolutions: our own width and depth, for processors
    "srvgg_tiny": UpscalerSpec(
        summary="SRVGG of 32 channels, 8 convolutions: the one that learns on a processor",
        paper=_REAL_ESRGAN,
        network=partial(SRVGG, width=32, depth=8),
    ),
    "srvgg": UpscalerSpec(summary="plain network of 64 channels, 16 convolutions", paper=_REAL_ESRGAN, network=SRVGG),
    "srvgg32": UpscalerSpec(
        summary="plain network of 64 channels, 32 convolutions", paper=_REAL_ESRGAN, network=partial(SRVGG, depth=32)
    ),
    "span": UpscalerSpec(summary="parameter-free attention, 48 channels", paper=_SPAN, network=SPAN),
    "span52": UpscalerSpec(
        summary="parameter-free attention, 52 channels", paper=_SPAN, network=partial(SPAN, width=52)
    ),
    "srresnet": UpscalerSpec(
        summary="residual blocks with batch norm; SRGAN's generator",
        paper="Ledig et al., SRGAN, CVPR 2017, arXiv:1609.04802",
        network=SRResNet,
    ),
    "srgan": UpscalerSpec(
        summary="srresnet, trained with --features",
        paper="Ledig et al., SRGAN, CVPR 2017, arXiv:1609.04802",
        network=SRResNet,
        judged=True,
    ),
    "msrresnet": UpscalerSpec(
        summary="SRResNet without batch norm, on a bilinear picture", paper=_ESRGAN, network=MSRResNet
    ),
    "edsr": UpscalerSpec(summary="EDSR baseline: 16 residual blocks of 64 channels", paper=_EDSR, network=edsr),
    "edsr_wide": UpscalerSpec(
        summary="EDSR: 32 residual blocks of 256 channels",
        paper=_EDSR,
        network=partial(edsr, width=256, depth=32, strength=0.1),
    ),
    "rcan": UpscalerSpec(
        summary="200 blocks with channel attention in 10 groups",
        paper="Zhang et al., RCAN, ECCV 2018, arXiv:1807.02758",
        network=rcan,
    ),
    "natsr": UpscalerSpec(
        summary="dense blocks under fractal shortcuts",
        paper="Soh et al., NatSR, CVPR 2019, arXiv:1911.03624",
        network=NatSR,
    ),
    "rrdb6": UpscalerSpec(
        summary="6 residual blocks of dense blocks", paper=_ESRGAN, network=partial(RRDBNet, blocks=6)
    ),
    "rrdb": UpscalerSpec(
        summary="23 residual blocks of dense blocks; ESRGAN's generator", paper=_ESRGAN, network=RRDBNet
    ),
    "esrgan": UpscalerSpec(summary="rrdb, trained with --features", paper=_ESRGAN, network=RRDBNet, judged=True),
    # a quarter of all channels, and no more blocks than the taps need: ours, for processors
    "spsr_tiny": UpscalerSpec(
        summary="SPSR of 16 channels, 20 blocks, for processors",
        paper=_SPSR,
        network=partial(SPSR, width=16, blocks=20, growth=8),
    ),
    "spsr": UpscalerSpec(
        summary="RRDB guided by a branch for gradient maps; the published +SPSR rows",
        paper=_SPSR,
        network=SPSR,
        narrow="spsr_tiny",
    ),
}
"""All that ``--sr`` takes by name."""
