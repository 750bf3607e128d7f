"""Pose networks behind upscalers: what they see in training, what they start from, upscalers that are trained, too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from test_training import Killer, Stop
from torch import Tensor, nn

from lrbench.adaptation import COURSES, UPSCALER, JointCourse, MixCourse, TaskDrivenCourse, partner_of
from lrbench.bench import Bench, MissingWeights
from lrbench.cells import Cell
from lrbench.datasets.coco import read
from lrbench.datasets.images import DataError, ImageStore
from lrbench.degradation import imresize, load_preset
from lrbench.fitting import fit
from lrbench.geometry import Size
from lrbench.loading import Crops
from lrbench.method import load_method
from lrbench.models.upscalers import UPSCALERS
from lrbench.models.upscalers.perceptual import PoseFeatures, perceptual_loss
from lrbench.models.upscalers.upscaler import initialise
from lrbench.recipes import load_recipe
from lrbench.records import Record
from lrbench.training import as_floats
from lrbench.upscaler_training import packed
from lrbench.upscaling import TOGETHER, open_upscaler, upscaling
from lrbench.weights import stated

SMALL, LARGE = Size(16, 12), Size(64, 48)


def cell(data: Path, runs: Path, **changes: Any) -> Cell:
    options = {
        "method": "hrnet", "sr": "srvgg_tiny", "sr_epochs": 1, "recipe": "quick", "epochs": 4, "batch": 4,
        "device": "cpu", "precision": "32-true", "workers": 0, "results": runs / "results",
    }  # fmt: skip
    return Cell(res=SMALL, data=str(data), runs=runs, **(options | changes))


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def settings_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "settings.json").read_text())


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)}


@pytest.fixture(scope="module")
def enlarger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of an upscaler whose details are not nothing, as a run of ours keeps it."""
    return kept_upscaler(tmp_path_factory.mktemp("sr") / "enlarger.safetensors", "srvgg_tiny")


def kept_upscaler(path: Path, name: str) -> Path:
    network = UPSCALERS[name].build(4)
    initialise(network, torch.Generator().manual_seed(3))
    network.residual = "bicubic"
    path.write_bytes(packed(network, name=name))
    return path


@pytest.fixture(scope="module")
def runs(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the upscaler and of the clean network, on which the others build."""
    folder = tmp_path_factory.mktemp("runs")
    Bench().prepare(cell(tiny_data, folder, pose="clean"))
    return folder


@pytest.fixture(scope="module")
def clean(tiny_data: Path, runs: Path) -> Path:
    """Weights of the clean network."""
    return Bench().open(cell(tiny_data, runs, pose="clean")).weights


@pytest.fixture(scope="module", params=TOGETHER)
def together(request: pytest.FixtureRequest, tiny_data: Path, runs: Path) -> Cell:
    """A cell whose network was trained together with its upscaler."""
    wanted = cell(tiny_data, runs, pose=request.param)
    Bench().prepare(wanted)
    return wanted


# ---------------------------------------------------------------- choices of pose


def test_clean_is_the_network_of_native_crops(tiny_data, runs, clean):
    plain = dataclasses.replace(cell(tiny_data, runs), sr="none", res=LARGE)
    run, trained = Bench(Killer("train", 1)).train(plain)  # it is there already, so nothing is trained
    assert trained.weights == clean
    assert run.parent == runs / "tiny" / "64x48" / "hrnet"
    assert (settings_of(run)["sr"], settings_of(run)["epochs"]) == ("none", 4)
    for upscaler in ("bicubic", "srvgg_tiny"):
        opened = Bench().open(cell(tiny_data, runs, sr=upscaler, pose="clean"))
        assert opened.weights == clean
        assert opened.method.upscaling is not None
        assert opened.method.upscaling.upscaler == upscaler
        assert torch.equal(opened.model()[0].network.conv1.weight, load_file(clean)["conv1.weight"])


def test_up_is_the_network_of_bicubic_pictures(tiny_data, tmp_path, runs, clean, enlarger):
    bicubic, trained = Bench().train(cell(tiny_data, runs, sr="bicubic", pose="up"))
    assert settings_of(bicubic)["sr"] == "bicubic x4"
    elsewhere, _ = Bench().train(cell(tiny_data, tmp_path, sr=str(enlarger), pose="up", clean=clean))
    assert elsewhere.name == bicubic.name
    assert (elsewhere / "weights.safetensors").read_bytes() == trained.weights.read_bytes()
    for sr in ("srvgg_tiny", str(enlarger)):
        wanted = cell(tiny_data, runs, pose="up", sr=sr)
        assert Bench().open(wanted).weights == trained.weights
        upscaled = Bench().open(wanted).method.upscaling
        assert (upscaled.upscaler, upscaled.pose) == ("srvgg_tiny", "up")
        assert Bench(Killer("epoch", 1)).train(wanted)[0] == bicubic
    assert Bench().train(cell(tiny_data, runs, sr="bicubic", pose="sr"))[0] == bicubic  # the same thing
    assert Bench().open(cell(tiny_data, runs, sr="bicubic", pose="up")).weights == trained.weights


@pytest.mark.parametrize("pose", ["sr", "up", "mix", "joint", "tdp"])
def test_short_recipes_continue_the_clean_network(tiny_data, runs, clean, pose):
    run, trained = Bench().train(cell(tiny_data, runs, pose=pose))
    settings = settings_of(run)
    assert settings["start"] == f"clean 64x48 sha256:{sha(clean)[:16]}"
    assert (settings["epochs"], trained.epochs) == (1, 1)  # a quarter of four
    assert settings_of(clean.parent)["epochs"] == 4
    start = Bench().starting_weights(cell(tiny_data, runs, pose=pose))
    told = load_file(clean)
    assert set(start) == set(told)
    assert all(torch.equal(start[name], told[name]) for name in told)
    assert trained.weights.read_bytes() != clean.read_bytes()


def test_length_of_what_continues(tiny_data, runs):
    for changes, epochs in (({}, 1), ({"epochs": 8}, 2), ({"epochs": 1}, 1), ({"adapt_epochs": 3}, 3)):
        assert cell(tiny_data, runs, **changes).training_recipe().epochs == epochs
    assert cell(tiny_data, runs, pose="clean").training_recipe().epochs == 4
    assert cell(tiny_data, runs, start=Path("a")).training_recipe().epochs == 4  # begins with something else
    with pytest.raises(ValueError, match="--adapt-epochs 0: expected at least 1"):
        cell(tiny_data, runs, adapt_epochs=0).training_recipe()


def test_the_papers_recipe_does_not_continue(tiny_data, tmp_path, enlarger, clean):
    paper = cell(tiny_data, tmp_path, recipe="paper", backbone="hrnet_w16", epochs=2, sr=str(enlarger))
    for pose in ("sr", "up", "mix"):
        wanted = dataclasses.replace(paper, pose=pose)
        assert not wanted.continues_clean
        assert wanted.training_recipe().epochs == 2
        assert Bench().starting_weights(wanted) == {}
    run, _ = Bench().train(dataclasses.replace(paper, epochs=1))
    assert (settings_of(run)["start"], settings_of(run)["epochs"]) == ("scratch", 1)
    assert not (tmp_path / "tiny" / "64x48").exists()
    # where two networks are trained together, it does
    wanted = dataclasses.replace(paper, pose="joint", epochs=8, clean=clean)
    assert wanted.training_recipe().epochs == 2
    assert set(Bench().starting_weights(wanted)) == set(load_file(clean))


def test_given_clean_weights_are_used_as_they_are(tiny_data, tmp_path, clean, enlarger):
    given = tmp_path / "clean.safetensors"
    given.write_bytes(clean.read_bytes())
    own = cell(tiny_data, tmp_path, clean=given, sr=str(enlarger))
    opened = Bench().open(dataclasses.replace(own, pose="clean"))
    assert (opened.weights, opened.training) == (given, None)
    with pytest.raises(ValueError, match=r"clean\.safetensors: .* used as they are.* nothing to train"):
        Bench().train(dataclasses.replace(own, pose="clean"))
    Bench(Killer("epoch", 1)).prepare(dataclasses.replace(own, pose="clean"))  # nothing is missing
    run, _ = Bench().train(dataclasses.replace(own, pose="sr"))
    assert settings_of(run)["start"] == f"clean 64x48 sha256:{sha(given)[:16]}"
    assert [path.parent.name for path in (tmp_path / "tiny").glob("*/*/")] == ["16x12"]  # no clean run of our own
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        Bench().open(dataclasses.replace(own, pose="clean", clean=tmp_path / "none.safetensors"))


def test_nothing_is_trained_for_scoring(tiny_data, tmp_path, runs, enlarger):
    for pose in ("clean", "up", "sr", "mix", "joint", "tdp"):
        with pytest.raises(MissingWeights, match="upscaler srvgg_tiny x4 has no finished run"):
            Bench().open(cell(tiny_data, tmp_path, pose=pose))
        with pytest.raises(MissingWeights, match=r"hrnet at (64x48|16x12) has no finished run"):
            Bench().open(cell(tiny_data, tmp_path, sr=str(enlarger), pose=pose))
    assert not (tmp_path / "tiny").exists()


# ---------------------------------------------------------------- courses


def course_of(data: Path, pose: str, upscaler: Path, seed: int = 0, **changes: Any) -> Any:
    """A course on its own, ready for the first epoch."""
    method = load_method("hrnet", SMALL, "hrnet_w16", upscaling(str(upscaler), pose=pose), align="corner")
    dataset = read(data, "train")
    crops = Crops(ImageStore(dataset.images), dataset.persons, method.frame, load_preset("paper"))
    recipe = dataclasses.replace(load_recipe("quick", LARGE), epochs=2, batch=4, **changes)
    return COURSES[pose](method, crops, recipe, seed=seed, workers=0)


def begun(course: Any) -> list[Any]:
    """The updates of a course that stands before its first step."""
    updates = course.setup(Fabric(accelerator="cpu", devices=1))
    course.begin(0)
    return list(updates)


def watched(course: Any, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The pictures that a course shows its pose network."""
    shown: list[Tensor] = []

    def keep(pictures: Tensor, batch: Any) -> dict[str, Tensor]:
        shown.append(pictures.detach().clone())
        return {}

    monkeypatch.setattr(course, "pose_terms", keep)
    return shown


def as_stored(pictures: Tensor) -> Tensor:
    return (255 * pictures.clamp(0, 1)).round() / 255


def test_courses_by_choice():
    assert dict(COURSES) == {"mix": MixCourse, "joint": JointCourse, "tdp": TaskDrivenCourse}
    assert set(TOGETHER) == {pose for pose, course in COURSES.items() if issubclass(course, JointCourse)}


def test_mix_is_a_third_of_each(tiny_data, enlarger, monkeypatch):
    course = course_of(tiny_data, "mix", enlarger)
    begun(course)
    shown = watched(course, monkeypatch)
    upscaler, counts, batches_of_one_kind = open_upscaler(enlarger), Counter(), 0
    for batch in course.batches(0):
        small = as_floats(batch.pixels)
        large = [imresize(one.permute(1, 2, 0).contiguous().numpy(), LARGE) for one in small]
        with torch.no_grad():
            kinds = {
                "clean": batch.target / 255,
                "bicubic": as_stored(torch.from_numpy(np.stack(large)).permute(0, 3, 1, 2)),
                "upscaler": as_stored(upscaler(small)),
            }
        for _ in range(60):
            course.terms(batch, 0.0)
            found = []
            for person, picture in enumerate(shown[-1]):
                apart = {kind: (picture - pictures[person]).abs() for kind, pictures in kinds.items()}
                same = [k for k, d in apart.items() if d.max() < 1.01 / 255 and d.mean() < 0.01 / 255]
                assert len(same) == 1, {k: float(d.max()) for k, d in apart.items()}
                found += same
            counts.update(found)
            batches_of_one_kind += len(set(found)) == 1
    assert sum(counts.values()) == 3 * 60 * 4
    assert all(200 < count < 280 for count in counts.values()), counts  # 240 are expected, give or take 13
    assert batches_of_one_kind < 30  # persons are drawn one by one: 1 batch in 27 is of one kind


def test_mix_reads_the_crops_that_are_scored(tiny_data, enlarger):
    course = course_of(tiny_data, "mix", enlarger)
    recipe = course.recipe
    plain = course.crops.epoch(4, 0, recipe.augmentation, 0, 1)
    for ours, theirs in zip(course.batches(1), plain, strict=True):
        assert torch.equal(ours.pixels, theirs.pixels)
        assert torch.equal(ours.keypoints, theirs.keypoints)
        assert torch.equal(ours.visible, theirs.visible)
        assert ours.target.shape == (4, 3, 64, 48)
    # beside them crops as clean networks see them; where the upscaler learns, as upscalers do
    assert course.pairs.sharp == load_preset("none")
    assert course_of(tiny_data, "joint", enlarger).pairs.sharp == load_preset("antialias")


@pytest.mark.parametrize("pose", ["mix", "joint", "tdp"])
def test_who_moves(tiny_data, tmp_path, enlarger, pose):
    course = course_of(tiny_data, pose, enlarger)
    network, upscaler = course.model.network, course.front.upscaler
    before = copied(network), copied(upscaler)
    fit(course, run=tmp_path / "run", identity={}, precision="32-true")
    weights = {name for name, _ in network.named_parameters()}
    assert len(moved(before[0], network) & weights) > 0.9 * len(weights)
    assert moved(before[1], upscaler) == (set() if pose == "mix" else set(before[1]))
    told = load_file(enlarger)
    assert all(torch.equal(told[name], tensor) for name, tensor in before[1].items())
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert ({UPSCALER, f"last_{UPSCALER}"} <= names) == (pose in TOGETHER)
    assert all(f"upscaler.{name}" not in load_file(tmp_path / "run" / "weights.safetensors") for name in told)
    if pose in TOGETHER:
        path = tmp_path / "run" / UPSCALER
        assert path == partner_of(tmp_path / "run" / "weights.safetensors")
        assert stated(path) == {"upscaler": "srvgg_tiny", "scale": 4, "residual": "bicubic"}
        kept = open_upscaler(path).state_dict()
        assert all(torch.equal(kept[name], tensor) for name, tensor in upscaler.state_dict().items())
    assert course.model.network.training
    assert not upscaler.training


def test_the_picture_counts_less_and_less_in_joint_training(tiny_data, tmp_path, enlarger):
    course = course_of(tiny_data, "joint", enlarger)
    (update,) = begun(course)
    assert (update.name, update.partner_rate) == ("", 0.1)
    assert {id(p) for p in update.partners} == {id(p) for p in course.upscaler.parameters()}
    assert {id(p) for p in update.parameters} == {id(p) for p in course.model.network.parameters()}
    batch = next(course.batches(0))
    made, target = course.upscaler(as_floats(batch.pixels)), as_floats(batch.target)
    ideal, weight = course.method.codec.encode(batch.keypoints, batch.visible)
    pose = course.stage.terms(course.model.network, course.model.read(made.clamp(0, 1)), ideal, weight)
    for share, factor in ((0.0, 1.0), (0.5, 0.55), (1.0, 0.1)):
        terms = update.terms(batch, share)
        assert set(terms) == {*pose, "picture"}
        torch.testing.assert_close(terms["picture"], factor * (made - target).abs().mean())
        for name, term in pose.items():  # in training mode, batch norms do not remember
            torch.testing.assert_close(terms[name], term)
    # the pose's loss alone reaches the upscaler, too
    sum(v for k, v in update.terms(batch, 0.0).items() if k != "picture").backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in update.partners)


@pytest.mark.parametrize("pose", ["joint", "tdp"])
def test_batch_norms_of_the_upscaler_do_not_move(tiny_data, tmp_path, pose):
    course = course_of(tiny_data, pose, kept_upscaler(tmp_path / "bn.safetensors", "srresnet"))
    updates, before = begun(course), copied(course.upscaler)
    for update in updates:
        update.terms(next(course.batches(0)), 0.0)
    assert any("running_mean" in name for name in before)
    assert not moved(before, course.upscaler)


def test_turns_leave_the_other_network_alone(tiny_data, enlarger):
    course = course_of(tiny_data, "tdp", enlarger)
    picture, pose = begun(course)
    assert (picture.name, picture.weight_decay, picture.partners, pose.name) == ("upscaler", 0.01, (), "")
    network, upscaler, batch = course.model.network, course.upscaler, next(course.batches(0))
    for share in (0.05, 0.5):
        before = copied(network), copied(upscaler)
        sum(picture.terms(batch, share).values()).backward()
        assert all(p.grad is None for p in network.parameters())
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in upscaler.parameters())
        assert not moved(before[0], network)  # batch norms' statistics neither
        assert not moved(before[1], upscaler)
        for parameter in upscaler.parameters():
            parameter.grad = None
        sum(pose.terms(batch, share).values()).backward()
        assert all(p.grad is None for p in upscaler.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        assert not moved(before[1], upscaler)
        for parameter in network.parameters():
            parameter.grad = None


def test_features_are_compared_after_a_tenth_of_the_run(tiny_data, enlarger):
    course = course_of(tiny_data, "tdp", enlarger)
    picture, _ = begun(course)
    batch = next(course.batches(0))
    assert set(picture.terms(batch, 0.0999)) == {"picture"}
    terms = picture.terms(batch, 0.1)
    assert set(terms) == {"picture", "features"}
    made, target = course.upscaler(as_floats(batch.pixels)), as_floats(batch.target)
    torch.testing.assert_close(terms["picture"], (made - target).abs().mean())
    judge = PoseFeatures(course.model)  # freezes all of it
    expected = perceptual_loss(made, target, judge, weight=1.0)["features"]
    torch.testing.assert_close(terms["features"], expected)
    assert expected > 0


def test_the_pose_network_is_frozen_for_the_pictures_turn_only(tiny_data, enlarger):
    course = course_of(tiny_data, "tdp", enlarger)
    picture, _ = begun(course)
    network, batch = course.model.network, next(course.batches(0))
    network.conv1.weight.requires_grad_(False)  # as a stage that trains a part of it would
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert Counter(flags.values())[False] == 1
    seen: list[tuple[bool, bool]] = []
    network.conv1.register_forward_hook(
        lambda layer, *_: seen.append((network.training, any(p.requires_grad for p in network.parameters())))
    )
    picture.terms(batch, 0.5)
    assert seen == [(False, False)] * 2  # of the originals and of the pictures
    assert {name: parameter.requires_grad for name, parameter in network.named_parameters()} == flags
    assert all(module.training for module in network.modules())
    assert not course.upscaler.training
    assert all(p.requires_grad for p in course.upscaler.parameters())


def test_the_poses_turn_sees_pictures_originals_and_patchworks(tiny_data, enlarger, monkeypatch):
    course = course_of(tiny_data, "tdp", enlarger)
    _, pose = begun(course)
    shown, cells = watched(course, monkeypatch), []
    for batch in course.batches(0):
        pose.terms(batch, 0.0)
        with torch.no_grad():
            made = course.upscaler(as_floats(batch.pixels)).clamp(0, 1)
        target = batch.target / 255
        pictures, originals, patchworks = shown[-1].split(4)
        torch.testing.assert_close(pictures, made)
        torch.testing.assert_close(originals, target)
        # 8 by 8 cells of 8 by 6 px, each of one of the two
        for patchwork, ours, theirs in zip(patchworks, pictures, originals, strict=True):
            for y, x in np.ndindex(8, 8):
                part = (..., slice(8 * y, 8 * y + 8), slice(6 * x, 6 * x + 6))
                same = [torch.equal(patchwork[part], whole[part]) for whole in (ours, theirs)]
                assert sorted(same) == [False, True]
                cells.append(same[0])
    assert len(cells) == 12 * 64
    assert 330 < sum(cells) < 440  # half of 768, give or take 14
    drawn = np.reshape(cells, (12, 8, 8))
    assert len({one.tobytes() for one in drawn}) == 12
    # no cell is bound to its neighbour
    for one, other in ((drawn[:, ::2], drawn[:, 1::2]), (drawn[:, :, ::2], drawn[:, :, 1::2])):
        assert 0.4 < (one != other).mean() < 0.6


def test_the_poses_loss_is_that_of_all_three_kinds(tiny_data, enlarger):
    course = course_of(tiny_data, "tdp", enlarger)
    begun(course)
    batch = next(course.batches(0))
    many = torch.rand(12, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    terms = course.pose_terms(many, batch)
    ideal, weight = course.method.codec.encode(torch.cat([batch.keypoints] * 3), torch.cat([batch.visible] * 3))
    expected = course.stage.terms(course.model.network, course.model.read(many), ideal, weight)
    assert set(terms) == set(expected)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term)


def test_rate_of_the_upscaler_in_turns(tiny_data, enlarger):
    course = course_of(tiny_data, "tdp", enlarger)
    course.epochs = 100  # 300 steps, of which 10 rise
    rates = [course.picture_rate(step) for step in range(300)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[0] < 2e-5
    assert max(rates) == pytest.approx(1e-4, rel=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[150] == pytest.approx((1e-4 + 1e-6) / 2)
    assert rates[-1] == pytest.approx(1e-6, rel=0.01)


# ---------------------------------------------------------------- killed and continued


@pytest.mark.parametrize("pose", ["mix", "joint", "tdp"])
def test_killed_and_continued_ends_in_the_same_weights(tiny_data, tmp_path, enlarger, clean, pose):
    wanted = cell(tiny_data, tmp_path / "a", sr=str(enlarger), clean=clean, pose=pose, adapt_epochs=2)
    whole, _ = Bench().train(wanted)
    killed = dataclasses.replace(wanted, runs=tmp_path / "b")
    with pytest.raises(Stop):
        Bench(Killer("train", 4)).train(killed)  # of 6 steps, 3 an epoch
    run, _ = Bench().train(killed)
    assert run.name == whole.name
    files = ["weights.safetensors", "last.safetensors"] + [UPSCALER, f"last_{UPSCALER}"] * (pose in TOGETHER)
    for name in files:
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    timeless = [{k: v for k, v in line.items() if "loss" in k} for line in lines(run)]
    assert timeless == [{k: v for k, v in line.items() if "loss" in k} for line in lines(whole)]
    assert ("upscaler loss" in timeless[0]) == (pose == "tdp")


# ---------------------------------------------------------------- scoring


def check_upscaler(record: Record, partner: Path, pose: str) -> None:
    """The record is of the upscaler in this file, and says so."""
    assert record.settings["upscaling"]["sha256"] == sha(partner)
    assert record.call.sr == "srvgg_tiny x4"
    assert record.call.pose == pose
    assert record.upscaler is not None
    assert record.upscaler["further"] == pose
    assert record.upscaler["quality"] is None


def test_the_upscaler_that_was_trained_with_a_network_is_scored_with_it(tiny_data, runs, together):
    opened = Bench().open(together)
    run = opened.weights.parent
    before = Bench().with_upscaler(together).sr_weights
    assert sha(before) != sha(run / UPSCALER)
    assert settings_of(run)["settings"]["upscaling"]["sha256"] == sha(before)  # where it began
    model, _ = opened.model()
    told = load_file(run / UPSCALER)
    assert all(torch.equal(told[name], tensor) for name, tensor in model.front.upscaler.state_dict().items())
    record = Bench().evaluate(together)
    check_upscaler(record, run / UPSCALER, together.pose)
    assert record.upscaler["upscaler"] == "srvgg_tiny"  # how it was trained before
    assert record.upscaler["persons"] == 9
    assert record.training.epochs == 1
    # other runs know the quality of theirs
    other = Bench().evaluate(dataclasses.replace(together, pose="clean"))
    assert other.settings["upscaling"]["sha256"] == sha(before)
    assert "further" not in other.upscaler
    assert other.upscaler["quality"] == json.loads((before.parent / "quality.json").read_text())


@pytest.mark.parametrize(("name", "given"), [("weights.safetensors", False), ("last.safetensors", True)])
def test_weights_of_a_run_bring_their_upscaler(tmp_path, together, enlarger, name, given):
    """Where there is no run of the upscaler, and where another one is given than the network began with."""
    run = Bench().open(together).weights.parent
    partner = run / (UPSCALER if name.startswith("weights") else f"last_{UPSCALER}")
    assert partner_of(run / name) == partner
    elsewhere = dataclasses.replace(together, runs=tmp_path / "runs", weights=run / name, results=tmp_path / "results")
    record = Bench().evaluate(dataclasses.replace(elsewhere, sr=str(enlarger) if given else "srvgg_tiny"))
    check_upscaler(record, partner, together.pose)
    assert record.metrics == Bench().evaluate(together).metrics
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("pose", TOGETHER)
def test_a_start_from_a_file_is_scored_as_it_was_trained(tiny_data, tmp_path, enlarger, clean, pose):
    wanted = cell(tiny_data, tmp_path, sr=str(enlarger), clean=clean, pose=pose)
    before = sha(enlarger)
    run, _ = Bench().train(wanted)
    record = Bench().evaluate(wanted)
    check_upscaler(record, run / UPSCALER, pose)
    assert sha(enlarger) == before != sha(run / UPSCALER)


def test_weights_without_their_upscaler_are_refused(tiny_data, tmp_path, together, enlarger):
    alone = tmp_path / "weights.safetensors"
    alone.write_bytes(Bench().open(together).weights.read_bytes())
    wanted = dataclasses.replace(together, weights=alone, sr=str(enlarger))
    with pytest.raises(DataError, match=r"weights\.safetensors: upscaler\.safetensors, .*, is not beside them"):
        Bench().evaluate(wanted)


@pytest.mark.parametrize(
    ("sr", "message"),
    [("bicubic", "it has nothing to train; choose clean, up, sr or mix"), ("file", "only upscalers that lrbench")],
)
@pytest.mark.parametrize("pose", TOGETHER)
def test_upscalers_that_cannot_be_trained_further(tiny_data, tmp_path, sr, message, pose):
    path = tmp_path / "published.safetensors"
    save_file(UPSCALERS["srvgg_tiny"].build(4).state_dict(), path)
    with pytest.raises(ValueError, match=message):
        Bench().train(cell(tiny_data, tmp_path / "runs", sr=str(path) if sr == "file" else sr, pose=pose))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("pose", ["clean", "up", "sr", "mix", "joint", "tdp"])
def test_methods_that_look_at_no_pixels_have_nothing_to_enlarge(tiny_data, tmp_path, enlarger, pose):
    wanted = cell(tiny_data, tmp_path / "runs", method="meanpose", sr=str(enlarger), pose=pose)
    for refused in (wanted.compose, lambda: Bench().evaluate(wanted)):
        with pytest.raises(ValueError, match="method meanpose looks at no pixels") as refusal:
            refused()
        assert "\n" not in str(refusal.value)
