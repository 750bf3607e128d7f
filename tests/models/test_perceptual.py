"""Judges of pictures: VGG-19's layers and values, the levels of every pose network, and the loss between pictures."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.method import list_methods, load_method
from lrbench.models.heads import map_network
from lrbench.models.hrnet import HRNetTrunk
from lrbench.models.network import MEAN, STD, PoseNetwork, count_parameters, initialise
from lrbench.models.resnet import ResNet
from lrbench.models.upscalers.perceptual import VGG19, Judge, PoseFeatures, load_vgg, perceptual_loss

# torchvision's vgg19 up to conv5_4: number of the layer, channels in and out
VGG_LAYERS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    16: (256, 256),
    19: (256, 512),
    21: (512, 512),
    23: (512, 512),
    25: (512, 512),
    28: (512, 512),
    30: (512, 512),
    32: (512, 512),
    34: (512, 512),
}
POOLED_AFTER = (2, 7, 16, 25)


class Blurs(Judge):
    """Two levels that can be computed by hand."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return [2 * pixels, F.avg_pool2d(pixels, 2)]


def picture(height: int, width: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    network = VGG19()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=(2 / max(1, parameter[0].numel())) ** 0.5, generator=generator)
    return network


def pose_network(backbone: str, method: str = "hrnet") -> PoseNetwork:
    network = load_method(method, Size(64, 48), backbone).build_model()
    initialise(network.network, "residual", torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that eval mode tells from those of a batch
            nn.init.constant_(module.weight, 0.7)
            module.running_mean += 0.1  # type: ignore[operator]
    return network


# ---------------------------------------------------------------- VGG-19


def test_vgg_has_torchvisions_layers(vgg: VGG19):
    shapes = {
        f"features.{number}.{kind}": ((outputs, inputs, 3, 3) if kind == "weight" else (outputs,))
        for number, (inputs, outputs) in VGG_LAYERS.items()
        for kind in ("weight", "bias")
    }
    assert {name: tuple(tensor.shape) for name, tensor in vgg.state_dict().items()} == shapes
    assert count_parameters(vgg) == 20_024_384


def test_vgg_is_its_description(vgg: VGG19):
    x = picture(35, 32, batch=1)
    state = vgg.state_dict()
    y = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    for number in VGG_LAYERS:
        y = F.conv2d(y, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1)
        if number != 34:
            y = y.clamp(min=0)
        if number in POOLED_AFTER:
            y = F.max_pool2d(y, 2)
    (seen,) = vgg(x)
    assert seen.shape == (1, 512, 2, 2)
    torch.testing.assert_close(seen, y)
    assert (seen < 0).any()  # before the ReLU


def saved(vgg: VGG19, path: Path, *without: str) -> Path:
    """One number per tensor is enough, and makes a small file; a classifier as torchvision's file has it."""
    tensors = {name: torch.full((1,), 1e-2).expand(tensor.shape) for name, tensor in vgg.state_dict().items()}
    tensors |= {"classifier.0.weight": torch.zeros(1).expand(4096, 25088), "classifier.0.bias": torch.zeros(4096)}
    torch.save({name: tensor for name, tensor in tensors.items() if name not in without}, path)
    return path


def test_vgg_from_a_file(vgg: VGG19, tmp_path: Path):
    loaded = load_vgg(saved(vgg, tmp_path / "vgg19.pth"))
    assert all(torch.all(parameter == 1e-2) for parameter in loaded.parameters())
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_files_that_are_not_vgg(vgg: VGG19, tmp_path: Path):
    path = saved(vgg, tmp_path / "vgg.pth", "features.34.weight", "features.34.bias")
    with pytest.raises(DataError, match=r"vgg\.pth: no VGG-19, 2 of its 32 tensors.*first features\.34\.weight"):
        load_vgg(path)
    torch.save({name: tensor[..., :1] for name, tensor in vgg.state_dict().items()}, path)
    with pytest.raises(DataError, match="32 of its 32 tensors missing or of another shape"):
        load_vgg(path)
    with pytest.raises(DataError, match="no such file"):
        load_vgg(tmp_path / "absent.pth")


# ---------------------------------------------------------------- pose networks


@pytest.mark.parametrize(
    ("method", "backbone"),
    [*product((row.name for row in list_methods()), ("hrnet_w16", "resnet18_w32")), ("hrnet", "litehrnet18")],
)
def test_levels_of_every_method(method: str, backbone: str):
    with torch.device("meta"):
        pose = load_method(method, Size(64, 48), backbone).build_model()
        if method == "meanpose":
            with pytest.raises(ValueError, match="MeanPose has no features to compare: expected layers stage2 and"):
                PoseFeatures(pose)
            return
        shapes = [tuple(maps.shape) for maps in PoseFeatures(pose)(torch.zeros(2, 3, 64, 48))]
    expected = {
        "hrnet_w16": [(2, 16, 16, 12)] * 2,
        "litehrnet18": [(2, 40, 16, 12)] * 2,
        "resnet18_w32": [(2, 64, 8, 6), (2, 128, 4, 3)],
    }
    assert shapes == expected[backbone]


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_levels_of_hrnet_are_its_finest_branches():
    pose = pose_network("hrnet_w16", "cal")
    trunk, x = pose.network, normalised(picture(64, 48))
    assert isinstance(trunk, HRNetTrunk)
    second, third = PoseFeatures(pose)(picture(64, 48))
    with torch.no_grad():
        branches = trunk.stage2(trunk.transition1([trunk.layer1(trunk.stem(x))]))
        torch.testing.assert_close(second, branches[0])
        torch.testing.assert_close(third, trunk.trunk(x)[0])
    assert not torch.equal(second, third)


def test_levels_of_resnet():
    pose = pose_network("resnet18_w32", "srpose")
    trunk = pose.network.get_submodule("backbone")
    assert isinstance(trunk, ResNet)
    seen = PoseFeatures(pose)(picture(64, 48))
    with torch.no_grad():
        for ours, expected in zip(seen, trunk(normalised(picture(64, 48)))[1:3], strict=True):
            torch.testing.assert_close(ours, expected)


def test_blue_comes_first_where_the_network_wants_it():
    pose = map_network("resnet18_w32", Size(64, 48), "auto", tuple, bgr=True).eval()
    before = [maps.clone() for maps in PoseFeatures(pose)(picture(64, 48))]
    pose.bgr = False
    for ours, expected in zip(before, PoseFeatures(pose)(picture(64, 48).flip(1)), strict=True):
        torch.testing.assert_close(ours, expected)


def test_nothing_behind_the_levels_runs_and_no_hook_stays():
    pose = pose_network("hrnet_w16")

    def refuse(*_: object) -> None:
        pytest.fail("ran")

    pose.network.get_submodule("stage4").register_forward_pre_hook(refuse)
    pose.front = nn.Identity()
    pose.front.register_forward_pre_hook(refuse)
    features = PoseFeatures(pose)
    first, again = features(picture(64, 48)), features(picture(64, 48))
    assert len(first) == len(again) == 2 and all(map(torch.equal, first, again))
    assert not any(module._forward_hooks for module in pose.modules())
    with pytest.raises(RuntimeError, match="size of tensor"):
        features(torch.zeros(1, 5, 64, 48))
    assert not any(module._forward_hooks for module in pose.modules())


@pytest.mark.parametrize("kind", ["vgg", "hrnet_w16", "resnet18_w32"])
def test_judges_never_change(kind: str, vgg: VGG19):
    judge = vgg if kind == "vgg" else PoseFeatures(pose_network(kind))
    before = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    nn.ModuleList([judge]).train()  # as a part of something that trains
    assert not any(module.training for module in judge.modules())
    x = picture(64, 48).requires_grad_()
    perceptual_loss(x, picture(64, 48, seed=2), judge, weight=1.0)["features"].backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and all(x.grad.abs().sum((1, 2, 3)) > 0)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in judge.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.state_dict().items())
    # neither mode nor neighbours decide what is seen
    for together, alone in zip(judge(picture(64, 48)), judge(picture(64, 48)[:1]), strict=True):
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------- the loss


def test_loss_is_the_mean_over_levels():
    ours, theirs = picture(6, 4), picture(6, 4, seed=2)
    terms = perceptual_loss(ours, theirs, Blurs(), weight=0.3)
    difference = ours - theirs
    expected = 0.3 * (2 * difference.abs().mean() + F.avg_pool2d(difference, 2).abs().mean()) / 2
    assert list(terms) == ["features"]
    torch.testing.assert_close(terms["features"], expected)
    assert float(perceptual_loss(theirs, theirs, Blurs(), weight=0.3)["features"]) == 0


def test_gradients_reach_the_picture_only():
    ours, theirs = picture(6, 4).requires_grad_(), picture(6, 4, seed=2).requires_grad_()
    perceptual_loss(ours, theirs, Blurs(), weight=1.0)["features"].backward()
    assert ours.grad is not None and ours.grad.abs().sum() > 0 and theirs.grad is None


def test_a_picture_can_be_drawn_after_what_a_pose_network_sees():
    judge = PoseFeatures(pose_network("resnet18_w32"))
    target = picture(64, 48, batch=1)
    drawn = torch.full_like(target, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([drawn], 0.05)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = perceptual_loss(drawn, target, judge, weight=1.0)["features"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
