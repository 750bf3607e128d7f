"""Training of upscalers: from bicubic to better, what is kept, what is continued, judged, started from and refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from test_pairs import pairs_of
from test_training import Killer, Stop
from torch import Tensor

from lrbench.augmentation import Augmentation
from lrbench.bench import QUALITY, Bench, MissingWeights, judge_from
from lrbench.cells import Cell, UpscalerCell
from lrbench.datasets.images import DataError
from lrbench.degradation import imresize
from lrbench.fidelity import fidelity
from lrbench.fitting import fit
from lrbench.geometry import Size
from lrbench.method import load_method
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.adversarial import UNetDiscriminator
from lrbench.models.upscalers.gradients import gradient_map
from lrbench.models.upscalers.perceptual import PoseFeatures, perceptual_loss
from lrbench.models.upscalers.released import load_upscaler
from lrbench.models.upscalers.rrdb import RRDBNet
from lrbench.models.upscalers.spsr import SPSR
from lrbench.models.upscalers.upscaler import Upscaler, initialise
from lrbench.pairs import Jitter, Pairs, detailed, some, split_off
from lrbench.training import as_floats
from lrbench.training import packed as packed_pose
from lrbench.upscaler_training import RECIPES, UpscalerCourse, load_upscaler_recipe, packed, quality
from lrbench.upscaling import open_upscaler, starting_tensors
from lrbench.weights import copy_matching, pretrained, stated

RECIPE = load_upscaler_recipe("quick", epochs=2, batch=3)
STILL = Augmentation(half_body=0.0, scale=0.0, rotation=0.0, flip=0.0)
SMALL = Size(16, 12)


def pairs_to(root: Path, persons: int = 9, jitter: Jitter | None = RECIPE.jitter) -> tuple[Pairs, Pairs]:
    """Pairs of a few persons to train on, and those that are held out."""
    pairs = pairs_of(root)
    learning, held = split_off(pairs.crops, detailed(pairs.crops, 4), 1000)
    learning = dataclasses.replace(learning, persons=some(learning.persons, np.arange(persons)))
    return (
        dataclasses.replace(pairs, crops=learning, jitter=jitter),
        dataclasses.replace(pairs, crops=held),
    )


def course_of(
    root: Path, name: str = "srvgg_tiny", recipe: Any = RECIPE, persons: int = 9, **options: Any
) -> UpscalerCourse:
    jitter = None if "judge" in options else recipe.jitter
    return UpscalerCourse(name, 4, *pairs_to(root, persons, jitter), recipe, workers=0, **options)


def run_of(course: UpscalerCourse, run: Path, **options: Any) -> Path:
    return fit(course, run=run, identity={}, precision="32-true", **options).weights


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kept(run: Path, name: str = "weights.safetensors") -> bytes:
    return (run / name).read_bytes()


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def copied(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def filled(name: str, residual: Any = "released", seed: int = 7) -> Upscaler:
    """A network with random weights, the last convolution's among them."""
    network = UPSCALERS[name].build(4)
    initialise(network, torch.Generator().manual_seed(seed))
    network.residual = residual
    return network.eval()


def picture() -> Tensor:
    return torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pose_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a pose network as a run keeps them."""
    method = load_method("hrnet", (64, 48), "hrnet_w16")
    network = method.build_model().network
    copy_matching(network, pretrained("hrnet_w16") or {})
    path = tmp_path_factory.mktemp("pose") / "weights.safetensors"
    path.write_bytes(packed_pose(network, method=method))
    return path


@pytest.fixture
def small_discriminators(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they are does not matter for who is trained when."""
    monkeypatch.setattr("lrbench.upscaler_training.UNetDiscriminator", partial(UNetDiscriminator, width=8))


# ---------------------------------------------------------------- from bicubic to better


@pytest.mark.parametrize("name", ["srvgg_tiny", "spsr_tiny"])
def test_untrained_is_exactly_bicubic(tiny_data, name):
    course = course_of(tiny_data, name)
    bicubic = UPSCALERS["bicubic"].build(4)
    assert torch.equal(course.average(picture()), bicubic(picture()))
    ours, theirs = (quality(network, course.held, workers=0) for network in (course.average, bicubic))
    assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(theirs), rel=1e-9)


def test_a_few_dozen_steps_are_closer_than_bicubic(tiny_data, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=24, peak_rate=2e-3, averaging=0.9, augmentation=STILL)
    pairs, held = pairs_to(tiny_data, jitter=None)
    course = UpscalerCourse("srvgg_tiny", 4, pairs, held, recipe, workers=0)
    run_of(course, tmp_path / "run")
    bicubic = quality(UPSCALERS["bicubic"].build(4), pairs, workers=0)
    ours = quality(open_upscaler(tmp_path / "run" / "last.safetensors"), pairs, workers=0)
    assert ours.psnr > bicubic.psnr + 0.1
    assert ours.gradient_l1 < 0.99 * bicubic.gradient_l1
    history = lines(tmp_path / "run")
    assert all({"loss", "pixels", "gradient", "val_psnr"} <= set(line) for line in history)
    assert history[0]["loss"] == pytest.approx(history[0]["pixels"] + history[0]["gradient"])
    assert history[-1]["loss"] < history[0]["loss"]
    # the best epoch is kept, by PSNR on the persons that were held out
    best = max(line["val_psnr"] for line in history)
    assert quality(open_upscaler(tmp_path / "run" / "weights.safetensors"), held, workers=0).psnr == pytest.approx(best)


def test_terms_of_a_course_without_a_judge(tiny_data):
    course = course_of(tiny_data)
    course.wrapped = course.network
    batch = next(course.batches(0))
    terms = course.psnr_terms(batch, 0.0)
    made, target = course.network(as_floats(batch.pixels)), as_floats(batch.target)
    assert set(terms) == {"pixels", "gradient"}
    torch.testing.assert_close(terms["pixels"], (made - target).abs().mean())
    torch.testing.assert_close(terms["gradient"], 0.1 * (gradient_map(made) - gradient_map(target)).abs().mean())


def test_the_branch_of_spsr_is_trained(tiny_data, tmp_path):
    course = course_of(tiny_data, "spsr_tiny", persons=1, recipe=dataclasses.replace(RECIPE, epochs=1))
    before = copied(course.network)
    run_of(course, tmp_path / "run")
    (line,) = lines(tmp_path / "run")
    assert line["loss"] == pytest.approx(line["pixels"] + line["gradient"] + line["branch"])
    assert line["branch"] > 0
    # the fusion's last layer is zero at first, so that nothing else of the picture's part can move; the branch can
    assert {"conv_w.0.weight", "b_module.1.weight", "f_HR_conv1.0.weight"} <= moved(before, course.network.state_dict())


def test_learning_rate_is_a_cosine(tiny_data):
    course = course_of(tiny_data)
    assert (course.steps, course.epochs, course.batch) == (3, 2, 3)
    rates = [course.rate(step) for step in range(7)]
    assert rates[0] == pytest.approx(5e-4)
    assert rates[3] == pytest.approx((5e-4 + 1e-6) / 2)
    assert rates[6] == pytest.approx(1e-6)
    assert rates == sorted(rates, reverse=True)


def test_recipes():
    paper = RECIPES["paper"]
    assert (paper.batch, paper.peak_rate, paper.last_rate, paper.betas) == (64, 2e-4, 1e-6, (0.9, 0.99))
    assert (paper.iterations, paper.averaging, paper.clip, paper.jitter.patch) == ((100_000, 300_000), 0.999, 1.0, 128)
    assert load_upscaler_recipe("paper", epochs=3).epochs == 3
    with pytest.raises(ValueError, match=r"unknown recipe 'papr'; did you mean paper\?"):
        load_upscaler_recipe("papr")
    for given in ({"epochs": 0}, {"batch": -1}):
        with pytest.raises(ValueError, match=r"(epochs 0|batch -1) of an upscaler: expected at least 1"):
            load_upscaler_recipe("quick", **given)


@pytest.mark.parametrize(("name", "iterations"), [("spsr_tiny", 100_000), ("rrdb6", 300_000)])
def test_the_papers_budget_grows_with_the_network(tiny_data, name, iterations):
    course = course_of(tiny_data, name, dataclasses.replace(RECIPES["paper"], batch=2))
    assert (course.steps, course.epochs) == (4, iterations // 4)


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize("averaging", [0.999, 0.2, 0.0])
def test_kept_weights_are_the_average_of_the_steps(tiny_data, tmp_path, averaging):
    course = course_of(tiny_data, recipe=dataclasses.replace(RECIPE, averaging=averaging, peak_rate=1e-2))
    expected = {name: tensor.double() for name, tensor in course.network.named_parameters()}
    steps = 0

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal steps
        if what == "train":
            steps = done
            share = min(averaging, done / (done + 10))  # of what was averaged before
            for name, now in course.network.named_parameters():
                expected[name] = share * expected[name].detach() + (1 - share) * now.detach().double()

    run_of(course, tmp_path / "run", progress=progress)
    kept = load_file(tmp_path / "run" / "last.safetensors")
    assert steps == 6
    assert set(kept) == set(expected)
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
    same = all(torch.equal(kept[name], now) for name, now in course.network.named_parameters())
    assert same == (averaging == 0.0)


def test_running_statistics_are_those_of_the_last_step(tiny_data, tmp_path):
    course = course_of(tiny_data, "srresnet", persons=2, recipe=dataclasses.replace(RECIPE, epochs=1))
    before = copied(course.network)
    run_of(course, tmp_path / "run")
    kept, now = load_file(tmp_path / "run" / "last.safetensors"), course.network.state_dict()
    buffers = [name for name, _ in course.network.named_buffers()]
    assert buffers
    assert all(torch.equal(kept[name], now[name]) for name in buffers)
    assert set(buffers) <= moved(before, kept)


def test_a_kept_file_says_what_it_is_and_makes_the_same_pictures(tiny_data, tmp_path):
    course = course_of(tiny_data, recipe=dataclasses.replace(RECIPE, peak_rate=1e-2))
    run_of(course, tmp_path / "run")
    path = tmp_path / "run" / "last.safetensors"
    assert stated(path) == {"upscaler": "srvgg_tiny", "scale": 4, "residual": "bicubic"}
    again = open_upscaler(path)
    assert not again.training
    with torch.no_grad():
        torch.testing.assert_close(again(picture()), course.average(picture()))
        again.to(memory_format=torch.channels_last)  # then rounding is the same, too
        assert torch.equal(again(picture()), course.average(picture()))
        assert not torch.allclose(again(picture()), load_upscaler(path)(picture()), atol=1e-3)  # as a published one


@pytest.mark.parametrize("residual", ["bicubic", "released"])
def test_files_keep_their_residual(tmp_path, residual):
    network = filled("srvgg_tiny", residual)
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(network, name="srvgg_tiny"))
    assert stated(path)["residual"] == residual
    with torch.no_grad():
        assert torch.equal(open_upscaler(path)(picture()), network(picture()))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"upscaler": "edsr", "scale": 4, "residual": "bicubic"}, "damaged, not those of edsr as it says"),
        ({"upscaler": "srvgg", "scale": 4, "residual": "bicubic"}, "damaged, not those of srvgg as it says"),
        ({"upscaler": "srvgg_tiny", "scale": 2, "residual": "bicubic"}, "damaged, not those of srvgg_tiny"),
        ({"upscaler": "srvgg_tiny", "scale": 3, "residual": "bicubic"}, "scale 3 is not available"),
        ({"upscaler": "srvgg_tiny", "scale": "four", "residual": "bicubic"}, "damaged, not those of srvgg_tiny"),
        ({"upscaler": "srvgg_tiny", "residual": "bicubic"}, "as it says ('scale')"),
        ({"upscaler": "srvgg_tiny", "scale": 4}, "adds details to None; expected bicubic or released"),
        ({"upscaler": "bicubic", "scale": 4, "residual": "released"}, "damaged, not those of bicubic"),
        pytest.param({"upscaler": "srvgg_tiny", "scale": None, "residual": "bicubic"}, "damaged"),
        pytest.param({"upscaler": "srvgg_tiny", "scale": 4, "residual": "nearest"}, "damaged"),
    ],
)
def test_lying_files_are_refused(tmp_path, about, message):
    path = tmp_path / "a.safetensors"
    save_file(filled("srvgg_tiny").state_dict(), path, {"lrbench": json.dumps(about)})
    with pytest.raises(DataError) as refusal:
        open_upscaler(path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    whole = packed(filled("srvgg_tiny"), name="srvgg_tiny")
    for damaged in (b"", whole[:100], whole[:-1], b"hello"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.safetensors: refused, not a file of tensors") as refusal:
            open_upscaler(path)
        assert "\n" not in str(refusal.value)


# ---------------------------------------------------------------- killed and continued


@pytest.mark.parametrize("at", [("epoch", 1), ("train", 5), ("epoch", 2)])
def test_killed_and_continued_ends_in_the_same_weights(tiny_data, tmp_path, at):
    run_of(course_of(tiny_data), tmp_path / "whole")
    with pytest.raises(Stop):
        run_of(course_of(tiny_data), tmp_path / "run", progress=Killer(*at))
    run_of(course_of(tiny_data), tmp_path / "run")
    for name in ("weights.safetensors", "last.safetensors"):
        assert kept(tmp_path / "run", name) == kept(tmp_path / "whole", name)
    for key in ("loss", "val_psnr", "learning_rate"):
        assert [line[key] for line in lines(tmp_path / "run")] == [line[key] for line in lines(tmp_path / "whole")]


def test_seed_decides(tiny_data, tmp_path):
    weights = [run_of(course_of(tiny_data, seed=seed), tmp_path / str(seed)).read_bytes() for seed in (0, 1)]
    assert weights[0] != weights[1]


# ---------------------------------------------------------------- with a judge


def test_perceptual_training_moves_both_sides(tiny_data, tmp_path, pose_file):
    course = course_of(tiny_data, persons=2, judge=judge_from(pose_file))
    assert set(course.networks) == {"upscaler", "average", "discriminator"}
    assert course.judge is not None
    ours, theirs, judge = copied(course.network), copied(course.networks["discriminator"]), copied(course.judge)
    run_of(course, tmp_path / "run")
    assert moved(ours, course.network.state_dict()) == set(ours)
    assert moved(theirs, course.networks["discriminator"].state_dict()) == set(theirs)
    assert not moved(judge, course.judge.state_dict())
    told = load_file(pose_file)
    assert all(torch.equal(tensor, told[name.removeprefix("pose.network.")]) for name, tensor in judge.items())
    first, _ = lines(tmp_path / "run")
    terms = {"pixels", "features", "discriminator"}
    assert terms | {"loss", "discriminator loss", "discriminator discriminator"} == {
        name for name in first if name not in ("epoch", "learning_rate", "seconds", "images_per_second", "data_wait")
    }
    assert first["loss"] == pytest.approx(sum(first[name] for name in terms))
    assert first["discriminator loss"] == pytest.approx(first["discriminator discriminator"])
    # it cannot tell yet, and neither side is far from log 2; the upscaler's share of it is 0.005
    assert first["discriminator loss"] == pytest.approx(math.log(2), abs=0.1)
    assert first["discriminator"] == pytest.approx(0.005 * math.log(2), abs=0.0005)
    # nothing says which epoch is the best, so the last is kept
    assert kept(tmp_path / "run") == kept(tmp_path / "run", "last.safetensors")


@pytest.mark.usefixtures("small_discriminators")
@pytest.mark.parametrize("name", ["srvgg_tiny", "spsr_tiny"])
def test_perceptual_training_continues(tiny_data, tmp_path, pose_file, name):
    """SPSR also over the border where more than its fusion begins to train."""
    start = filled(name).state_dict()

    def course() -> UpscalerCourse:
        return course_of(tiny_data, name, persons=1, judge=judge_from(pose_file), start=start)

    run_of(course(), tmp_path / "whole")
    with pytest.raises(Stop):
        run_of(course(), tmp_path / "run", progress=Killer("epoch", 1))
    run_of(course(), tmp_path / "run")
    assert kept(tmp_path / "run") == kept(tmp_path / "whole")
    for key in ("loss", "discriminator loss"):
        assert [line[key] for line in lines(tmp_path / "run")] == [line[key] for line in lines(tmp_path / "whole")]


def test_pixels_and_features_have_the_released_weights(tiny_data, pose_file):
    course = course_of(tiny_data, persons=2, judge=judge_from(pose_file))
    ours, theirs = course.setup(Fabric(accelerator="cpu", devices=1))
    assert (ours.name, theirs.name, ours.clip, theirs.clip) == ("", "discriminator", 1.0, 1.0)
    batch = next(course.batches(0))
    assert batch.target.shape == (2, 3, 64, 48)  # whole crops: persons as the judge knows them
    terms = ours.terms(batch, 0.0)
    made, target = course.network(as_floats(batch.pixels)), as_floats(batch.target)
    torch.testing.assert_close(terms["pixels"], 0.01 * F.l1_loss(made, target))
    expected = perceptual_loss(made, target, judge_from(pose_file), weight=1.0)["features"]
    torch.testing.assert_close(terms["features"], expected)
    assert expected > 0
    # neither side's terms reach the other
    sum(terms.values()).backward()
    assert all(p.grad is None for p in course.networks["discriminator"].parameters())
    assert all(p.grad is not None for name, p in course.network.named_parameters() if name.startswith("body.18"))
    for parameter in course.network.parameters():
        parameter.grad = None
    sum(theirs.terms(batch, 0.0).values()).backward()
    assert all(p.grad is None for p in course.network.parameters())
    assert all(p.grad is not None for p in course.networks["discriminator"].parameters())


@pytest.mark.usefixtures("small_discriminators")
def test_fusion_of_spsr_is_trained_alone_at_first_if_the_rest_was_given(tiny_data, tmp_path, pose_file):
    course = course_of(
        tiny_data, "spsr_tiny", persons=1, judge=judge_from(pose_file), start=filled("spsr_tiny").state_dict()
    )
    assert set(course.networks) == {"upscaler", "average", "discriminator", "edges"}
    states, edges = [copied(course.network)], copied(course.networks["edges"])

    def progress(what: str, done: int, total: int, note: str = "") -> None:
        if what == "epoch":
            states.append(copied(course.network))

    run_of(course, tmp_path / "run", progress=progress)
    fusion = {name for name in states[0] if name.startswith("f_")}
    assert moved(states[0], states[1]) == fusion  # step 1 of 2, of which one percent is less
    assert {"model.0.weight", "b_fea_conv.0.weight", "conv_w.0.weight"} | fusion <= moved(states[1], states[2])
    assert moved(edges, course.networks["edges"].state_dict()) == set(edges)
    for line in lines(tmp_path / "run"):
        terms = {"pixels", "gradient", "branch", "features", "discriminator", "edges"}
        assert line["loss"] == pytest.approx(sum(line[name] for name in terms))
        assert {"discriminator loss", "discriminator discriminator", "discriminator edges"} <= set(line)


@pytest.mark.usefixtures("small_discriminators")
@pytest.mark.parametrize(
    ("started", "share", "alone"), [(True, 0.0099, True), (True, 0.01, False), (False, 0.0, False)]
)
def test_how_long_the_fusion_is_trained_alone(tiny_data, pose_file, started, share, alone):
    start = {"model.0.bias": torch.ones(16)} if started else None
    course = course_of(tiny_data, "spsr_tiny", persons=1, judge=judge_from(pose_file), start=start)
    ours, _ = course.setup(Fabric(accelerator="cpu", devices=1))
    ours.terms(next(course.batches(0)), share)
    frozen = {name for name, parameter in course.network.named_parameters() if not parameter.requires_grad}
    rest = {name for name, _ in course.network.named_parameters() if not name.startswith("f_")}
    assert frozen == (rest if alone else set())


def test_judge_from_a_file(tmp_path, pose_file):
    judge = judge_from(pose_file)
    assert isinstance(judge, PoseFeatures)
    assert [tuple(maps.shape) for maps in judge(torch.rand(1, 3, 64, 48))] == [(1, 16, 16, 12)] * 2
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(DataError, match="no VGG-19"):
        judge_from(other)
    method = load_method("meanpose", (64, 48))
    other.write_bytes(packed_pose(method.build_model().network, method=method))
    with pytest.raises(ValueError, match="MeanPose has no features to compare"):
        judge_from(other)


# ---------------------------------------------------------------- through the bench


def cell(data: Path, runs: Path, upscaler: str = "srvgg_tiny", **changes: Any) -> UpscalerCell:
    options = {"recipe": "quick", "epochs": 1, "batch": 9, "device": "cpu", "precision": "32-true", "workers": 0}
    return UpscalerCell(upscaler=upscaler, res=SMALL, data=str(data), runs=runs, **(options | changes))


@pytest.fixture
def courses(monkeypatch: pytest.MonkeyPatch) -> list[UpscalerCourse]:
    """The courses that a bench makes."""
    made: list[UpscalerCourse] = []

    class Watched(UpscalerCourse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.untrained = copied(self.network)
            made.append(self)

    monkeypatch.setattr("lrbench.bench.UpscalerCourse", Watched)
    return made


def test_quality_is_that_of_persons_held_out(tiny_data, tmp_path, courses):
    run, trained, facts = Bench().train_upscaler(cell(tiny_data, tmp_path))
    assert trained.weights == run / "weights.safetensors"
    assert run.parent == tmp_path / "tiny" / "16x12" / "srvgg_tiny"
    assert facts == json.loads((run / QUALITY).read_text())
    learning, held = courses[0].pairs.crops.persons, courses[0].held.crops.persons
    assert not set(learning.image) & set(held.image)
    assert len(learning) + len(held) == 12
    settings = json.loads((run / "settings.json").read_text())
    assert (settings["persons"], facts["persons"]) == (len(learning), len(held)) == (9, 3)
    assert courses[0].held.jitter is None
    # bicubic anew, by what makes pictures small
    pictures, targets = [], []
    for row in range(len(held)):
        small, target, _, _ = courses[0].held.sample(row, courses[0].held.crops.view(row))
        pictures.append(imresize(small.astype(np.float32) / 255, Size(64, 48)))
        targets.append(target.astype(np.float32) / 255)
    stacked = (torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2) for part in (pictures, targets))
    assert facts["bicubic"] == pytest.approx(dataclasses.asdict(fidelity(*stacked)), rel=1e-3)
    own = dataclasses.asdict(quality(open_upscaler(run / "weights.safetensors"), courses[0].held, workers=0))
    assert {name: facts[name] for name in own} == own
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}
    again = Bench().train_upscaler(cell(tiny_data, tmp_path))
    assert (again[0], again[2]) == (run, facts)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()} == before


def test_the_bench_continues_what_was_killed(tiny_data, tmp_path):
    long = cell(tiny_data, tmp_path / "a", epochs=2)
    run, _, _ = Bench().train_upscaler(long)
    killed = dataclasses.replace(long, runs=tmp_path / "b")
    with pytest.raises(Stop):
        Bench(Killer("epoch", 1)).train_upscaler(killed)
    behind = Cell(
        method="hrnet", res=SMALL, sr="srvgg_tiny", sr_epochs=2, data=str(tiny_data), recipe="quick", device="cpu",
        precision="32-true", workers=0, runs=tmp_path / "b",
    )  # fmt: skip
    with pytest.raises(MissingWeights, match=r"upscaler srvgg_tiny x4 has no finished run .* lrbench train srvgg_tiny"):
        Bench().with_upscaler(behind)
    again, _, _ = Bench().train_upscaler(killed)
    assert again.name == run.name
    assert kept(again) == kept(run)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"epochs": 2}, {"batch": 3}, {"pairs": "matched"}, {"recipe": "paper"}, {"start": "own"}],
)
def test_other_settings_are_another_run(tiny_data, tmp_path, change):
    plain = cell(tiny_data, tmp_path)
    if "start" in change:
        change = {"start": tmp_path / "start.safetensors"}
        change["start"].write_bytes(packed(filled("srvgg_tiny"), name="srvgg_tiny"))
    folders = {Bench().train_upscaler(dataclasses.replace(plain, **c))[0] for c in ({}, change, {"workers": 1})}
    assert len(folders) == 2


def test_degradation_is_part_of_matched_pairs_only(tiny_data, tmp_path, courses):
    for pairs, runs in (("bicubic", 1), ("matched", 2)):
        cells = [cell(tiny_data, tmp_path, pairs=pairs, lr_preset=preset) for preset in ("paper", "antialias")]
        settings = [json.loads((Bench().train_upscaler(c)[0] / "settings.json").read_text()) for c in cells]
        assert len({json.dumps(s) for s in settings}) == runs
        assert [(s["lr_preset"] or {}).get("name") for s in settings] == (
            [None, None] if runs == 1 else ["paper", "antialias"]
        )
    assert {(c.pairs.kind, c.held.kind) for c in courses} == {("bicubic", "bicubic"), ("matched", "matched")}


@pytest.mark.usefixtures("small_discriminators")
def test_whole_crops_where_a_pose_network_judges(tiny_data, tmp_path, courses, pose_file):
    patchy = cell(tiny_data, tmp_path, batch=2)
    judged = dataclasses.replace(patchy, features=pose_file)
    settings = []
    for wanted in (patchy, judged):
        with pytest.raises(Stop):  # the first batch is enough
            Bench(Killer("train", 1)).train_upscaler(wanted)
    for path in sorted(tmp_path.rglob("settings.json"), key=lambda path: path.stat().st_mtime_ns):
        settings.append(json.loads(path.read_text()))
    assert [s["recipe"]["jitter"]["patch"] for s in settings] == [128, None]
    assert [bool(s["features"]) for s in settings] == [False, True]
    assert [next(c.batches(0)).target.shape for c in courses] == [(2, 3, 48, 48), (2, 3, 64, 48)]
    assert (courses[0].judge, isinstance(courses[1].judge, PoseFeatures)) == (None, True)


# ---------------------------------------------------------------- starts


def started(data: Path, runs: Path, start: Path, courses: list[UpscalerCourse], name: str = "srvgg_tiny") -> Path:
    run, _, _ = Bench().train_upscaler(cell(data, runs, name, start=start))
    assert json.loads((run / "settings.json").read_text())["start"].startswith("sha256:")
    assert courses[-1].started
    return run


def first_picture(course: Any) -> Tensor:
    """What the network made before it was trained."""
    network = UPSCALERS[course.name].build(course.scale, course.network.residual)
    network.load_state_dict(course.untrained)
    return network.eval()(picture()).detach()


@pytest.mark.parametrize("residual", ["bicubic", "released"])
def test_start_from_a_file_of_ours(tiny_data, tmp_path, courses, residual):
    own = filled("srvgg_tiny", residual)
    path = tmp_path / "own.safetensors"
    path.write_bytes(packed(own, name="srvgg_tiny"))
    run = started(tiny_data, tmp_path / "runs", path, courses)
    assert torch.equal(first_picture(courses[0]), own(picture()))
    assert stated(run / "weights.safetensors")["residual"] == residual


def test_start_from_a_published_file(tiny_data, tmp_path, courses):
    published = filled("srvgg_tiny")
    path = tmp_path / "published.pth"
    torch.save({"params_ema": published.state_dict()}, path)
    run = started(tiny_data, tmp_path / "runs", path, courses)
    assert torch.equal(first_picture(courses[0]), load_upscaler(path)(picture()))  # and not that plus bicubic
    assert stated(run / "weights.safetensors")["residual"] == "released"
    # so others can open it as what it was
    after, theirs = (read(run / "weights.safetensors") for read in (open_upscaler, load_upscaler))
    with torch.no_grad():
        assert torch.equal(after(picture()), theirs(picture()))
        assert not torch.equal(after(picture()), published(picture()))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """RRDB, ESRGAN and SPSR with as many blocks as SPSR needs, and few channels."""
    rrdb = partial(RRDBNet, width=8, blocks=20)
    for name, network in {"rrdb": rrdb, "esrgan": rrdb, "spsr": partial(SPSR, width=8, blocks=20)}.items():
        monkeypatch.setitem(UPSCALERS, name, dataclasses.replace(UPSCALERS[name], network=network))


RENAMED = {  # BasicSR's names of RRDB's layers
    "model.0": "conv_first", "model.1.sub.20": "conv_body", "model.3": "conv_up1", "model.6": "conv_up2",
    "model.8": "conv_hr", "model.10": "conv_last",
}  # fmt: skip


def refuse(*_: Any, **__: Any) -> None:
    raise Stop


def as_basicsr(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if layer in RENAMED:
        return f"{RENAMED[layer]}.{kind}"
    _, _, _, block, dense, number, _ = layer.split(".")
    return f"body.{block}.{dense.lower()}.{number}.{kind}"


@pytest.mark.usefixtures("narrow")
def test_spsr_takes_its_trunk_from_rrdb(tiny_data, tmp_path, courses, monkeypatch):
    rrdb = filled("rrdb")
    path, own = tmp_path / "rrdb.safetensors", tmp_path / "own.safetensors"
    save_file({as_basicsr(name): tensor for name, tensor in rrdb.state_dict().items()}, path)
    own.write_bytes(packed(rrdb, name="rrdb"))
    for file in (path, own):
        tensors, residual = starting_tensors(file, "spsr")
        assert (set(tensors), residual) == (set(rrdb.state_dict()), "bicubic")
    monkeypatch.setattr("lrbench.bench.fit", refuse)
    with pytest.raises(Stop):
        Bench().train_upscaler(cell(tiny_data, tmp_path / "runs", "spsr", start=path))
    (course,) = courses
    taken = {name for name in rrdb.state_dict() if not name.startswith("model.10")}
    assert all(torch.equal(course.untrained[name], rrdb.state_dict()[name]) for name in taken)
    assert {name for name in course.untrained if name.startswith("model.")} == taken
    # the last layer is SPSR's own, so the first picture is bicubic
    assert torch.equal(first_picture(course), UPSCALERS["bicubic"].build(4)(picture()))
    assert course.started


@pytest.mark.usefixtures("narrow")
def test_a_released_rrdb_is_where_esrgan_begins(tmp_path):
    path = tmp_path / "rrdb.safetensors"
    save_file(filled("rrdb").state_dict(), path)
    tensors, residual = starting_tensors(path, "esrgan")
    assert residual == "released"
    assert set(tensors) == set(filled("esrgan").state_dict())


@pytest.mark.usefixtures("narrow")
def test_an_rrdb_of_ours_is_where_esrgan_begins(tmp_path):
    """Both are one network, so the start is the picture that the RRDB makes."""
    path = tmp_path / "rrdb.safetensors"
    path.write_bytes(packed(filled("rrdb", "bicubic"), name="rrdb"))
    assert starting_tensors(path, "esrgan")[1] == "bicubic"


def test_start_that_fits_nowhere_is_refused(tiny_data, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(3), "b": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="none of the 2 tensors to start with fits srvgg_tiny"):
        Bench().train_upscaler(cell(tiny_data, tmp_path / "runs", start=path))
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        Bench().train_upscaler(cell(tiny_data, tmp_path / "runs", start=tmp_path / "none.safetensors"))
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("upscaler", "change", "message"),
    [
        ("bicubic", {}, "upscaler bicubic has nothing to train"),
        ("srvgg_tiny", {"scale": 3}, "scale 3; choose one of 2, 4"),
        ("esrgan", {}, "give --features FILE"),
        ("srvgg_tiny", {"pairs": "other"}, "expected bicubic or matched"),
        ("srvgg_tiny", {"epochs": 0}, "epochs 0 of an upscaler: expected at least 1"),
        ("srvgg_tiny", {"recipe": "slow"}, "unknown recipe 'slow'"),
        ("srvgg_tiny", {"lr_preset": "papr"}, "did you mean paper"),
        ("srvgg_tiny", {"res": Size(64, 48)}, "at 256x192 are in fewer than two pictures"),
    ],
)
def test_refusals(tiny_data, tmp_path, upscaler, change, message):
    with pytest.raises(ValueError, match=message) as refusal:
        Bench().train_upscaler(dataclasses.replace(cell(tiny_data, tmp_path / "runs", upscaler), **change))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "runs").exists()
