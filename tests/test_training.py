"""Runs: continuing bit for bit, stages, freezing, refusals."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lrbench.datasets.coco import read
from lrbench.datasets.images import ImageStore
from lrbench.degradation import load_preset
from lrbench.loading import Crops
from lrbench.method import Method, load_method
from lrbench.methods.cal import paired
from lrbench.models.network import PoseNetwork, initialise
from lrbench.recipes import PAPER, QUICK, Recipe
from lrbench.training import TrainingError, train
from lrbench.weights import copy_matching

RECIPE = dataclasses.replace(QUICK, epochs=3, batch=4)


class Stop(BaseException):
    """What kills a run in these tests."""


class Killer:
    """A progress report that records what it is told, and kills the run at a chosen word."""

    def __init__(self, what: str = "", done: int = -1) -> None:
        self.at = (what, done)
        self.heard: list[tuple[str, int]] = []

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        self.heard.append((what, done))
        if (what, done) == self.at:
            raise Stop


def method_of(name: str = "hrnet") -> Method[Any]:
    return load_method(name, (64, 48), "hrnet_w16")


def crops_of(root: Path, method: Method[Any]) -> Crops:
    dataset = read(root, "train")
    return Crops(ImageStore(dataset.images), dataset.persons, method.frame, load_preset("paper"))


def fit(root: Path, run: Path, method: Method[Any] | None = None, recipe: Recipe = RECIPE, **options: Any):
    method = method or method_of()
    options = {"identity": {"a": 1}, "precision": "32-true", "workers": 0, **options}
    return train(method, crops_of(root, method), recipe, run=run, **options)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of hrnet."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit(tiny_data, run)
    return run


@pytest.mark.parametrize(
    ("at", "workers"), [(("epoch", 1), 0), (("epoch", 1), 3), (("train", 5), 2), (("epoch", 3), 0)]
)
def test_killed_and_continued_ends_in_the_same_weights(tiny_data, tmp_path, whole, at, workers):
    run = tmp_path / "run"
    with pytest.raises(Stop):
        fit(tiny_data, run, progress=Killer(*at))
    done = {("epoch", 1): 1, ("train", 5): 1, ("epoch", 3): 3}[at]
    assert len(lines(run)) == done
    assert not (run / "weights.safetensors").exists()
    second = Killer()
    trained = fit(tiny_data, run, workers=workers, progress=second)
    assert [d for w, d in second.heard if w == "epoch"] == list(range(done + 1, 4))  # nothing is done twice
    assert trained.epochs == 3
    for name in ("weights.safetensors", "last.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(whole)]


@pytest.mark.parametrize("name", ["hrnet", "cal"])
def test_continued_in_bfloat16_and_over_a_border_of_stages(tiny_data, tmp_path, name):
    recipe, weights = dataclasses.replace(RECIPE, epochs=2), []
    for kill in (False, True):
        run = tmp_path / str(kill)
        if kill:
            with pytest.raises(Stop):
                fit(tiny_data, run, method_of(name), recipe, precision="bf16-mixed", progress=Killer("epoch", 1))
        weights.append(fit(tiny_data, run, method_of(name), recipe, precision="bf16-mixed").weights.read_bytes())
    assert weights[0] == weights[1]


def test_seed_decides(tiny_data, tmp_path, whole):
    trained = fit(tiny_data, tmp_path / "run", seed=1)
    assert trained.weights.read_bytes() != (whole / "weights.safetensors").read_bytes()


def test_finished_run_is_not_trained_again(tiny_data, tmp_path):
    run, recipe = tmp_path / "run", dataclasses.replace(RECIPE, epochs=1)
    first = fit(tiny_data, run, recipe=recipe)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.iterdir()}
    progress = Killer()
    second = fit(tiny_data, run, recipe=recipe, progress=progress)
    assert progress.heard == []
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.iterdir()} == before
    assert (second.epochs, second.seconds, second.weights) == (first.epochs, first.seconds, first.weights)


def test_files_of_a_run(whole):
    names = {"settings.json", "metrics.jsonl", "weights.safetensors", "last.safetensors", "state.pt"}
    assert {p.name for p in whole.iterdir()} == names
    history = lines(whole)
    assert [line["epoch"] for line in history] == [0, 1, 2]
    for line in history:
        assert {"loss", "heatmap", "learning_rate", "seconds", "images_per_second", "data_wait"} <= set(line)
        assert 0 <= line["data_wait"] <= 1
        assert line["loss"] == pytest.approx(line["heatmap"])
    assert history[0]["learning_rate"] == pytest.approx(RECIPE.peak_rate * 3 / 30)  # 12 persons in batches of 4
    state = torch.load(whole / "state.pt", weights_only=True)
    assert set(state) == {"networks", "optimizers", "history"}
    weights = load_file(whole / "weights.safetensors")
    assert set(weights) == set(method_of().build_model().network.state_dict())
    assert {"conv1.weight", "final_layer.weight"} <= set(weights)
    assert json.loads((whole / "settings.json").read_text()) == {"a": 1}


def test_folder_of_other_settings_is_refused(tiny_data, tmp_path):
    run, recipe = tmp_path / "run", dataclasses.replace(RECIPE, epochs=1)
    fit(tiny_data, run, recipe=recipe)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(TrainingError, match="holds a run of other settings"):
        fit(tiny_data, run, recipe=recipe, identity={"a": 2})
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


@pytest.mark.parametrize("data", [b"", b"hello", "half"])
def test_damaged_state_is_refused_and_kept(tiny_data, tmp_path, data):
    run, recipe = tmp_path / "run", dataclasses.replace(RECIPE, epochs=1)
    fit(tiny_data, run, recipe=recipe)
    state = (run / "state.pt").read_bytes()
    (run / "state.pt").write_bytes(state[: len(state) // 2] if data == "half" else data)
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    with pytest.raises(TrainingError, match=r"state\.pt is damaged .*; remove the folder"):
        fit(tiny_data, run, recipe=recipe)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def loss_that_breaks(prediction: Any, ideal: Any, weight: Tensor, *, inner: Any, calls: list[int], at: int) -> Mapping:
    calls.append(1)
    terms = inner(prediction, ideal, weight)
    return {k: v * float("nan") for k, v in terms.items()} if len(calls) == at else terms


def test_loss_that_is_no_number_stops_the_run(tiny_data, tmp_path):
    method, run = method_of(), tmp_path / "run"
    (stage,) = method.stages
    loss = partial(loss_that_breaks, inner=stage.loss, calls=[], at=5)
    broken = dataclasses.replace(method, stages=(dataclasses.replace(stage, loss=loss),))
    with pytest.raises(TrainingError, match="hrnet: the loss is nan in epoch 2, step 2; the last whole epoch is kept"):
        fit(tiny_data, run, broken)
    assert len(lines(run)) == 1
    state = torch.load(run / "state.pt", weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["networks"]["pose"].values() if v.is_floating_point())
    assert fit(tiny_data, run).epochs == 3  # continues with a loss that works


def test_stages_of_cal_get_their_epochs(tiny_data, tmp_path):
    fit(tiny_data, tmp_path / "run", method_of("cal"))
    assert [line["stage"] for line in lines(tmp_path / "run")] == [0, 0, 1]
    assert all({"heatmap", "offset"} <= set(line) for line in lines(tmp_path / "run"))


def parameters(method: Method[Any], run: Path) -> dict[str, Tensor]:
    names = [name for name, _ in method.build_model().network.named_parameters()]
    return {name: value for name, value in load_file(run / "weights.safetensors").items() if name in names}


def test_train_only_freezes_the_rest(tiny_data, tmp_path):
    method, prefixes = method_of(), ("final_layer", "stage4.0.branches.0")
    (stage,) = method.stages
    second = dataclasses.replace(stage, epochs=stage.epochs, train_only=prefixes)
    free = dataclasses.replace(method, stages=(stage,))
    frozen = dataclasses.replace(method, stages=(stage, second))
    recipe = dataclasses.replace(RECIPE, schedule="paper", epochs=1)
    fit(tiny_data, tmp_path / "one", free, recipe)
    fit(tiny_data, tmp_path / "two", frozen, dataclasses.replace(recipe, epochs=2))
    before, after = parameters(method, tmp_path / "one"), parameters(method, tmp_path / "two")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # nothing else moves, although Adam still remembers how it moved in the first stage
    assert changed
    assert all(name.startswith(prefixes) for name in changed)
    assert {"final_layer.weight", "final_layer.bias"} <= changed
    # and in the first stage all of it moved
    model = method.build_model()
    initialise(model.network, recipe.initialisation, torch.Generator().manual_seed(0))
    start = dict(model.network.named_parameters())
    assert sum(not torch.equal(start[name], before[name]) for name in before) > 0.9 * len(before)


def test_copy_matching_copies_what_fits():
    target = method_of().build_model().network
    before = {k: v.clone() for k, v in target.state_dict().items()}
    weights = {
        "conv1.weight": torch.full_like(before["conv1.weight"], 7),
        "bn1.weight": torch.full((3,), 7.0),  # another shape
        "no.such": torch.zeros(1),
        "final_layer.bias": torch.full_like(before["final_layer.bias"], 2, dtype=torch.float64),
    }
    assert sorted(copy_matching(target, weights).used) == ["conv1.weight", "final_layer.bias"]
    after = target.state_dict()
    assert (after["conv1.weight"] == 7).all()
    assert (after["final_layer.bias"] == 2).all()
    assert after["final_layer.bias"].dtype == torch.float32
    assert all(torch.equal(after[k], before[k]) for k in before if k not in ("conv1.weight", "final_layer.bias"))


def test_start_weights_are_used(tiny_data, tmp_path, whole):
    recipe = dataclasses.replace(RECIPE, epochs=1, peak_rate=0.0)  # nothing is learnt
    start = load_file(whole / "weights.safetensors")
    trained = fit(tiny_data, tmp_path / "run", recipe=recipe, start=start)
    names = [name for name, _ in method_of().build_model().network.named_parameters()]
    after = load_file(trained.weights)
    assert all(torch.equal(after[name], start[name]) for name in names)


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.3, 0.2], 2), ([0.3, 0.1, 0.2], 1), ([0.2, 0.2, 0.2], 1)])
def test_best_epoch_is_kept_also_over_a_break(tiny_data, tmp_path, scores, best):
    recipe = dataclasses.replace(RECIPE, select="best")
    kept: list[dict[str, Tensor]] = []

    def validate(model: Any) -> float:
        kept.append({k: v.clone() for k, v in model.network.state_dict().items()})
        return scores[len(kept) - 1]

    with pytest.raises(Stop):
        fit(tiny_data, tmp_path / "run", recipe=recipe, validate=validate, progress=Killer("epoch", 2))
    fit(tiny_data, tmp_path / "run", recipe=recipe, validate=validate)
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(weights[k], v) for k, v in kept[best - 1].items())
    assert [line["val_ap"] for line in lines(tmp_path / "run")] == scores
    last = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(last[k], v) for k, v in kept[2].items())
    assert PAPER.select == "best"


def test_mean_pose_is_the_mean(tiny_data, tmp_path):
    method = load_method("meanpose", (64, 48))
    trained = fit(tiny_data, tmp_path / "run", method)
    batch = next(iter(crops_of(tiny_data, method).batches(12, 0)))
    count = batch.visible.sum(0)[:, None]
    mean = (batch.keypoints * batch.visible[..., None]).sum(0) / count.clamp_min(1)
    pose = load_file(trained.weights)["pose"]
    labelled = count[:, 0] > 0
    torch.testing.assert_close(pose[labelled], mean[labelled])
    before = trained.weights.stat().st_mtime_ns
    fit(tiny_data, tmp_path / "run", method)
    assert trained.weights.stat().st_mtime_ns == before


class TwoMaps(nn.Module):
    """What CAL decodes, from next to nothing; it draws, and has statistics."""

    output_layers = ("heatmap", "offset")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.1)
        self.heatmap, self.offset = nn.Conv2d(8, 17, 1), nn.Conv2d(8, 34, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop(self.norm(self.stem(x)).relu())
        return self.heatmap(x), self.offset(x)


def two_maps() -> PoseNetwork[Any]:
    return PoseNetwork(TwoMaps(), paired)


def small_cal(**second: Any) -> Method[Any]:
    """CAL with both stages, and changes to the second one."""
    method = dataclasses.replace(method_of("cal"), build_model=two_maps)
    first, last = method.stages
    return dataclasses.replace(method, stages=(first, dataclasses.replace(last, **second)))


@pytest.fixture
def traced(monkeypatch) -> list[Any]:
    """Graphs that are traced as for the compiler, and run as they are."""
    graphs: list[Any] = []

    def keep(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    def spared(function: Any, *, mode: str, dynamic: bool) -> Any:
        return whole(function, dynamic=dynamic, backend=keep)

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", spared)
    return graphs


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_compiled_training_ends_where_the_plain_one_does(tiny_data, tmp_path, traced, precision):
    plain = fit(tiny_data, tmp_path / "plain", small_cal(), precision=precision)
    compiled = fit(tiny_data, tmp_path / "compiled", small_cal(), precision=precision, compile=True)
    ours, theirs = load_file(compiled.weights), load_file(plain.weights)
    assert set(ours) == set(two_maps().network.state_dict())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, msg=name)
    assert [line["compiled"] for line in lines(tmp_path / "compiled")] == [True] * 3
    assert ["compile_seconds" in line for line in lines(tmp_path / "compiled")] == [True, False, True]
    assert not any("compiled" in line for line in lines(tmp_path / "plain"))
    assert len(traced) == 1  # both stages run the same


@pytest.mark.parametrize("at", [("epoch", 1), ("train", 5), ("epoch", 2)])
def test_compiled_training_continues_bit_for_bit(tiny_data, tmp_path, traced, at):
    weights = []
    for kill in (False, True):
        run = tmp_path / str(kill)
        if kill:
            with pytest.raises(Stop):
                fit(tiny_data, run, small_cal(), compile=True, progress=Killer(*at))
        weights.append(fit(tiny_data, run, small_cal(), compile=True).weights.read_bytes())
    assert weights[0] == weights[1]


def test_training_goes_on_where_nothing_compiles(tiny_data, tmp_path, monkeypatch):
    def missing(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler on this machine")

    plain = fit(tiny_data, tmp_path / "plain", small_cal())
    monkeypatch.setattr(torch, "compile", missing)
    trained = fit(tiny_data, tmp_path / "run", small_cal(), compile=True)
    assert trained.weights.read_bytes() == plain.weights.read_bytes()
    for line in lines(tmp_path / "run"):
        assert (line["compiled"], line["compile_failure"]) == (False, "no compiler on this machine")


def test_compiled_training_freezes_and_validates(tiny_data, tmp_path, traced):
    method, recipe = small_cal(train_only=("offset",)), dataclasses.replace(RECIPE, select="best")
    shapes = []

    def validate(model: Any) -> float:
        model.eval()
        with torch.inference_mode():
            shapes.append(model(torch.rand(5, 3, 64, 48)).heatmap.shape)
        return len(shapes)

    fit(tiny_data, tmp_path / "run", method, recipe, compile=True, validate=validate)
    assert shapes == [(5, 17, 16, 12)] * 3
    assert len(traced) == 2  # the second stage needs other gradients; evaluation is not compiled
    with pytest.raises(Stop):
        fit(tiny_data, tmp_path / "first", method, recipe, compile=True, validate=validate, progress=Killer("epoch", 2))
    before, after = load_file(tmp_path / "first" / "last.safetensors"), load_file(tmp_path / "run" / "last.safetensors")
    moved = {name for name, _ in two_maps().network.named_parameters() if not torch.equal(before[name], after[name])}
    assert moved == {"offset.weight", "offset.bias"}
