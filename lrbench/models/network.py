"""What every pose network has in common: normalised input, a packed output, initialisation and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from lrbench.geometry import Size

P = TypeVar("P")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB in [0, 1], with which all published networks are fed."""

Initialisation = Literal["paper", "residual"]
"""``paper``: convolutions N(0, 0.001), as the released pose networks. ``residual``: Kaiming, residual branches start at
zero, output layers N(0, 0.001): learns from scratch in a small budget."""


class PoseNetwork(nn.Module, Generic[P]):
    """RGB in [0, 1] -> what the codec decodes.

    Its state dict is the network's own, so that official checkpoints load and ours load elsewhere.

    Args:
        network: takes normalised pictures (B, 3, h, w).
        pack: turns the network's output into the codec's tuple.
        mean, std: of the pixels, RGB in [0, 1].
        bgr: the network takes blue first (SimpleBaseline's released ones do, with the statistics of RGB).

    Attributes:
        front: what the pixels pass before anything else, for example an upscaler; None for nothing. It is no part of
            the state dict.
    """

    front: nn.Module | None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        pack: Callable[..., P],
        *,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        bgr: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.pack = pack
        self.bgr = bgr
        self.front = None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> P:
        """(B, 3, h, w) RGB in [0, 1] -> prediction."""
        return self.read(self.prepare(pixels))

    def prepare(self, pixels: Tensor) -> Tensor:
        """What the pose network will see of (B, 3, h, w), RGB in [0, 1]: the same, or what `front` makes of it."""
        return pixels if self.front is None else torch.as_tensor(self.front(pixels))

    def read(self, pixels: Tensor) -> P:
        """Prepared pixels -> prediction."""
        if self.bgr:
            pixels = pixels.flip(1)
        return self.pack(self.network((pixels - self.mean) / self.std))


def initialise(network: nn.Module, scheme: Initialisation, generator: torch.Generator) -> None:
    """Fill all parameters anew; batch norms get weight 1, bias 0 and fresh statistics.

    Linear and 1-D convolutions get torch's own initialisation, as the released networks leave it. A network whose paper
    says otherwise of some layers has a method `initialise(scheme, generator)`, which is called last.

    Args:
        network: anything with an attribute `output_layers`, the names of the layers that emit maps.
        scheme: see `Initialisation`.
        generator: the only source of randomness.
    """
    heads = tuple(network.output_layers)  # type: ignore[arg-type]
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d):
            reset_as_torch(module, generator)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if scheme == "paper" or name in heads:
                nn.init.normal_(module.weight, std=0.001, generator=generator)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    if scheme == "residual":
        for module in network.modules():
            last = getattr(module, "bn3", getattr(module, "bn2", None))
            if hasattr(module, "downsample") and isinstance(last, nn.BatchNorm2d):
                nn.init.zeros_(last.weight)
    own = getattr(network, "initialise", None)
    if own is not None:
        own(scheme, generator)


def reset_as_torch(module: nn.Linear | nn.Conv1d | nn.Conv2d, generator: torch.Generator) -> None:
    """Torch's default initialisation, uniform within 1 / sqrt(fan in), from a generator."""
    bound = module.weight[0].numel() ** -0.5
    nn.init.uniform_(module.weight, -bound, bound, generator=generator)
    if module.bias is not None:
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def count_parameters(network: nn.Module) -> int:
    """All parameters, batch norms and biases included."""
    return sum(p.numel() for p in network.parameters())


def count_macs(network: nn.Module, size: Size) -> int:
    """Multiply-adds of convolutions (transposed ones on their input grid) and linear layers for one crop."""
    total = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        per_position = weight.numel() // (weight.shape[0] if not isinstance(module, nn.ConvTranspose2d) else 1)
        if isinstance(module, nn.ConvTranspose2d):
            total += per_position * inputs[0].shape[-2] * inputs[0].shape[-1]
        else:
            total += per_position * output[0].numel()

    counted = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, counted)]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            tensors = [*network.parameters(), *network.buffers()]
            device = tensors[0].device if tensors else "cpu"
            network(torch.zeros(1, 3, size.height, size.width, device=device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return total
