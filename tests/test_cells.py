"""Cells: what options decide, pixels that rows share, crops that are trained on, and what a record says of it all."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lrbench
from lrbench.bench import Bench, MissingWeights, perfect
from lrbench.cells import ADAPTED_SHARE, Cell, UpscalerCell
from lrbench.comparison import Selection, plan_methods, run_planned, run_row
from lrbench.corruptions.corruption import SEVERITIES
from lrbench.datasets.images import Pixels
from lrbench.degradation import Mixture, Preset, crop, load_preset
from lrbench.geometry import Float, Size
from lrbench.loading import Crops
from lrbench.models.network import PoseNetwork, initialise
from lrbench.models.upscalers import UPSCALERS
from lrbench.records import Record, record_path
from lrbench.structures import POSES

SMALL = Size(16, 12)
COMPUTING: dict[str, Any] = {"device": "cpu", "precision": "32-true", "workers": 0}
PERSONS = 9
"""That are scored in the tiny dataset."""


@pytest.fixture
def cell(tiny_data: Path, tmp_path: Path) -> Cell:
    return Cell(
        method="udp",
        res=SMALL,
        data=str(tiny_data),
        recipe="quick",
        epochs=1,
        batch=4,
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        **COMPUTING,
    )


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cell], Cell]:
    """A cell with the weights of an untrained network."""
    folder = tmp_path_factory.mktemp("untrained")

    def with_weights(cell: Cell) -> Cell:
        path = folder / f"{cell.method}_{cell.enlarged}_{cell.sr == 'none'}.safetensors"
        if not path.exists():
            network = cell.compose().build_model().network
            initialise(network, "residual", torch.Generator().manual_seed(0))
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
        return dataclasses.replace(cell, weights=path)

    return with_weights


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upscaler that none of our runs made."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("given") / "given.safetensors"
    save_file(UPSCALERS["srvgg_tiny"].build(4).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def own_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A folder of runs, the run of an upscaler in it, and that one's quality."""
    runs = tmp_path_factory.mktemp("upscalers")
    cell = UpscalerCell(upscaler="srvgg_tiny", res=SMALL, data=str(tiny_data), recipe="quick", epochs=1, runs=runs,
                        **COMPUTING)  # fmt: skip
    run, _, quality = Bench().train_upscaler(cell)
    return runs, run, quality


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    """Every crop that is cut from a picture."""
    made: list[Pixels] = []

    def noted(image: Pixels, matrix: Float, size: Size, preset: Preset, rng: Any = None) -> Pixels:
        made.append(crop(image, matrix, size, preset, rng))
        return made[-1]

    monkeypatch.setattr("lrbench.loading.crop", noted)
    return made


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Every batch of crops that the model of a row is given."""
    batches: list[torch.Tensor] = []
    original = Crops.batch

    def noted(self: Crops, *arguments: Any) -> Any:
        batch = original(self, *arguments)
        batches.append(batch.pixels)
        return batch

    monkeypatch.setattr(Crops, "batch", noted)
    return batches


@pytest.fixture
def enlargements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many crops the upscaler of a row enlarges to be scored, batch by batch."""
    made: list[int] = []
    prepare = PoseNetwork.prepare

    def noted(self: PoseNetwork[Any], pixels: torch.Tensor) -> torch.Tensor:
        if self.front is not None:
            made.append(len(pixels))
        return prepare(self, pixels)

    monkeypatch.setattr(PoseNetwork, "prepare", noted)
    monkeypatch.setattr("lrbench.bench.latency_ms", lambda *given, **named: 1.0)
    return made


def predictions(record: Record, results: Path) -> list[dict[str, Any]]:
    path = record_path(results, record).with_name(f"{record.key}.predictions.json.gz")
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    return rows


def planned(cell: Cell, **options: Any) -> list[Cell]:
    return [item.cell for item in plan_methods(cell, Selection(sizes=[cell.res], **options)) if item.cell]


class TestSharedPixels:
    def test_all_rows_beside_an_upscaler_read_the_same_crops_which_are_cut_once(
        self, cell: Cell, untrained: Callable[[Cell], Cell], cuts: list[Pixels], seen: list[torch.Tensor]
    ):
        cells = planned(cell, methods=["hrnet", "udp"], upscalers=["none", "bicubic"], poses=["clean"])
        bench = Bench()
        for one in cells:
            bench.evaluate(untrained(one))
        assert len(cells) == len(seen) == 4
        assert len(cuts) == PERSONS
        assert all(torch.equal(batch, seen[0]) for batch in seen)
        assert np.array_equal(seen[0].permute(0, 2, 3, 1).numpy(), np.stack(cuts))

    def test_rows_of_a_plain_comparison_keep_each_method_s_own(
        self, cell: Cell, untrained: Callable[[Cell], Cell], cuts: list[Pixels], seen: list[torch.Tensor]
    ):
        bench = Bench()
        for one in planned(cell, methods=["hrnet", "udp"]):
            bench.evaluate(untrained(one))
        assert len(cuts) == 2 * PERSONS
        assert not torch.equal(*seen)

    @pytest.mark.parametrize("change", [{"lr_preset": "antialias"}, {"split": "train"}, {"align": "dark"}])
    def test_other_pixels_are_others(
        self, cell: Cell, untrained: Callable[[Cell], Cell], cuts: list[Pixels], change: dict[str, Any]
    ):
        bench, plain = Bench(), untrained(dataclasses.replace(cell, align="corner"))
        bench.evaluate(plain)
        bench.evaluate(plain)
        assert len(cuts) == PERSONS
        other = dataclasses.replace(plain, **change)
        record = bench.evaluate(other)
        assert len(cuts) == PERSONS + record.counts.crops
        alone = Bench().evaluate(dataclasses.replace(other, results=cell.results / "alone"))
        assert predictions(alone, cell.results / "alone") == predictions(record, cell.results)

    def test_random_pixels_are_drawn_once_for_all_rows(
        self, cell: Cell, untrained: Callable[[Cell], Cell], seen: list[torch.Tensor]
    ):
        noisy = untrained(dataclasses.replace(cell, lr_preset="sensor", align="corner"))
        bench = Bench()
        for seed in (0, 0, 1):
            bench.evaluate(dataclasses.replace(noisy, lr_seed=seed))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], seen[2])

    def test_training_views_are_not_kept(self, cell: Cell, cuts: list[Pixels]):
        Bench().train(dataclasses.replace(cell, epochs=2))
        assert len(cuts) == 2 * 12

    @pytest.mark.parametrize("name", ["hrnet", "dark", "simcc", "udp", "integral"])
    def test_crops_of_another_rule_are_read_as_exactly(self, cell: Cell, name: str):
        """What a codec misses depends on its map, not on the rule of the crop: px of the crop, at most."""
        missed = {"hrnet": 2.2, "dark": 0.07, "simcc": 0.19, "udp": 1e-3, "integral": 1e-3}[name]
        own = dataclasses.replace(cell, method=name, res=Size(64, 48))
        shared = dataclasses.replace(own, align="corner")
        for one in (own, shared):
            method = one.compose()
            crops = Bench().crops(one.data, one.split, method, load_preset("none"))
            found, persons = perfect(method, crops), crops.persons
            for row in range(PERSONS):
                scale = crops.frame.region(persons.box[row], annotated=True).side / (48, 64)
                apart = np.abs(found.keypoints[row, :, :2] - persons.keypoints[row]) / scale
                assert apart[persons.visible[row] > 0].max() <= missed
        assert Bench().ceiling(shared)["metrics"]["ap"] == pytest.approx(
            Bench().ceiling(own)["metrics"]["ap"], abs=0.02
        )


class TestSharedPictures:
    def test_kept_pictures_give_the_same_predictions_as_new_ones(
        self, cell: Cell, untrained: Callable[[Cell], Cell], given: Path, enlargements: list[int]
    ):
        first, second = planned(cell, methods=["hrnet", "udp"], upscalers=[str(given)], poses=["clean"])
        bench = Bench()
        before = bench.evaluate(untrained(first))
        assert sum(enlargements) == PERSONS
        reused = bench.evaluate(untrained(second))
        assert sum(enlargements) == PERSONS
        anew = Bench().evaluate(dataclasses.replace(untrained(second), results=cell.results / "anew"))
        assert sum(enlargements) == 2 * PERSONS
        assert predictions(reused, cell.results) == predictions(anew, cell.results / "anew")
        assert (reused.key, reused.metrics) == (anew.key, anew.metrics)
        assert before.cost.eval_images_per_second is not None
        assert reused.cost.eval_images_per_second is None  # it did not pay for the upscaler

    @pytest.mark.parametrize(
        "change", [{"sr_boundary": "float"}, {"sr": "lanczos"}, {"lr_preset": "antialias"}, {"align": "dark"}]
    )
    def test_other_pictures_are_others(
        self, cell: Cell, untrained: Callable[[Cell], Cell], enlargements: list[int], change: dict[str, Any]
    ):
        plain = untrained(dataclasses.replace(cell, sr="bicubic", pose="clean"))
        bench = Bench()
        bench.evaluate(plain)
        bench.evaluate(dataclasses.replace(plain, **change))
        assert sum(enlargements) == 2 * PERSONS

    def test_how_coordinates_go_back_and_what_is_trained_on_need_no_new_pictures(
        self, cell: Cell, untrained: Callable[[Cell], Cell], enlargements: list[int]
    ):
        plain = untrained(dataclasses.replace(cell, sr="bicubic", pose="clean"))
        bench = Bench()
        for change in ({}, {"sr_map": "naive"}, {"pose": "up"}, {"flip": False}):
            bench.evaluate(dataclasses.replace(plain, **change))
        assert sum(enlargements) == PERSONS

    def test_only_so_many_are_kept(
        self, cell: Cell, untrained: Callable[[Cell], Cell], enlargements: list[int], monkeypatch: pytest.MonkeyPatch
    ):
        """The oldest give way; one that is too large alone is not kept."""
        size = 3 * 64 * 48 * PERSONS
        plain = untrained(dataclasses.replace(cell, sr="bicubic", pose="clean"))
        fronts = ("bicubic", "lanczos", "bicubic")
        for most, expected in ((2 * size, 2), (size, 3), (size - 1, 3)):
            monkeypatch.setattr("lrbench.bench.KEPT", most)
            bench = Bench()
            enlargements.clear()
            for front in fronts:
                bench.evaluate(dataclasses.replace(plain, sr=front))
            assert sum(enlargements) == expected * PERSONS


@dataclass(frozen=True)
class Flat:
    """A sampling that gives one grey."""

    grey: int

    def crop(self, image: Pixels, matrix: Float, size: Size, rng: np.random.Generator) -> Pixels:
        return np.full((size.height, size.width, 3), self.grey, np.uint8)

    def shrink(self, image: Pixels, size: Size, rng: np.random.Generator) -> Pixels:
        return self.crop(image, np.eye(2, 3), size, rng)


class TestTrainingPixels:
    def test_each_choice(self, cell: Cell):
        noisy = dataclasses.replace(cell, lr_preset="sensor", severity=2)
        assert noisy.training_preset() == noisy.preset() == load_preset("sensor", 2)
        named = {
            name: dataclasses.replace(noisy, degrade_train=name).training_preset() for name in ("none", "antialias")
        }
        assert named == {name: load_preset(name) for name in named}
        with pytest.raises(ValueError, match="unknown degradation 'sensr'; did you mean sensor"):
            dataclasses.replace(noisy, degrade_train="sensr").training_preset()

    def test_a_mixture_is_half_plain_and_of_all_severities(self, cell: Cell):
        mixed = dataclasses.replace(cell, lr_preset="sensor", severity=2, degrade_train="mix").training_preset()
        assert isinstance(mixed.sampling, Mixture)
        assert Counter((part.name, part.severity) for part in mixed.sampling.parts) == {
            ("none", 0): len(SEVERITIES), **{("sensor", severity): 1 for severity in SEVERITIES}
        }  # fmt: skip
        plain, hard = load_preset("none"), load_preset("antialias")
        assert Mixture.of(plain, hard).sampling == Mixture((plain, hard))
        told = json.loads(json.dumps(mixed.plain))
        assert (told["name"], len(told["parts"])) == ("mix-sensor", 2 * len(SEVERITIES))

    def test_parts_are_drawn_alike(self):
        parts = [Preset(name=str(grey), summary="", sampling=Flat(grey)) for grey in (0, 0, 0, 10, 20, 30)]
        mixed = Preset(name="mix", summary="", sampling=Mixture(tuple(parts)), random=True)
        image, rng = np.zeros((4, 4, 3), np.uint8), np.random.default_rng(0)
        drawn = Counter(int(crop(image, np.eye(2, 3), Size(1, 1), mixed, rng)[0, 0, 0]) for _ in range(6000))
        for grey, expected in ((0, 3000), (10, 1000), (20, 1000), (30, 1000)):
            assert abs(drawn[grey] - expected) < 5 * expected**0.5

    def test_a_mixture_is_drawn_from_the_generator_alone(self):
        image = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
        mixed = Mixture.of(load_preset("none"), load_preset("sensor"))
        matrix = np.array([[0.25, 0, 0], [0, 0.25, 0]])
        drawn = [
            crop(image, matrix, Size(10, 7), mixed, np.random.default_rng(seed)).tobytes() for seed in [*range(40)] * 2
        ]
        assert drawn[:40] == drawn[40:]
        plain = crop(image, matrix, Size(10, 7), load_preset("none")).tobytes()
        assert 10 <= drawn[:40].count(plain) <= 30
        assert len(set(drawn)) > 10

    def test_it_makes_another_run_and_leaves_the_scored_pixels_alone(
        self, cell: Cell, untrained: Callable[[Cell], Cell], seen: list[torch.Tensor]
    ):
        choices = ("same", "none", "mix", "antialias")
        mean = dataclasses.replace(cell, method="meanpose", lr_preset="sensor")
        records, runs, scored = {}, {}, []
        for choice in choices:
            one = dataclasses.replace(mean, degrade_train=choice)
            runs[choice], _ = Bench().train(one)
            seen.clear()
            records[choice] = Bench().evaluate(one)
            scored.append(torch.cat(seen))
        assert len(set(runs.values())) == len(choices)
        told = {name: record.training.degradation["name"] for name, record in records.items() if record.training}
        assert told == {"same": "sensor", "none": "none", "mix": "mix-sensor", "antialias": "antialias"}
        assert all(torch.equal(pixels, scored[0]) for pixels in scored)
        # this method does not look at pixels, so the weights are the same, and the number is
        assert len({record.key for record in records.values()}) == 1
        assert {record.protocol.degradation["crop"]["name"] for record in records.values()} == {"sensor"}

    def test_it_is_what_training_sees(self, cell: Cell, monkeypatch: pytest.MonkeyPatch):
        used: list[str] = []

        def noted(image: Pixels, matrix: Float, size: Size, preset: Preset, rng: Any = None) -> Pixels:
            used.append(preset.name)
            return crop(image, matrix, size, preset, rng)

        monkeypatch.setattr("lrbench.loading.crop", noted)
        Bench().train(dataclasses.replace(cell, lr_preset="sensor", degrade_train="mix"))
        assert set(used) == {"mix-sensor"}


class TestRecords:
    CHANGES = (
        {},
        {"pose": "up"},
        {"pose": "mix"},
        {"sr_boundary": "float"},
        {"sr_map": "naive"},
        {"align": "own"},
        {"align": "dark"},
        {"sr": "lanczos"},
        {"lr_preset": "antialias"},
        {"lr_preset": "sensor"},
        {"lr_preset": "sensor", "severity": 1},
        {"lr_preset": "sensor", "lr_seed": 1},
    )

    def test_every_choice_is_told_and_has_a_key_of_its_own(self, cell: Cell, untrained: Callable[[Cell], Cell]):
        plain = untrained(dataclasses.replace(cell, method="hrnet", sr="bicubic", pose="clean"))
        bench, records = Bench(), []
        for change in self.CHANGES:
            one = dataclasses.replace(plain, **change)
            record = bench.evaluate(one)
            records.append(record)
            front = record.settings["upscaling"]
            assert record.call.pose == front["pose"] == one.pose
            assert record.call.sr == f"{one.sr} x4"
            assert (front["upscaler"], front["scale"]) == (one.sr, 4)
            assert (front["boundary"], front["mapping"]) == (one.sr_boundary, one.sr_map)
            assert record.protocol.align == {None: "corner", "own": "biased", "dark": "dark"}[one.align]
            made = record.protocol.degradation
            assert made["crop"] == one.preset().plain
            assert made.get("seed") == (one.lr_seed if one.lr_preset == "sensor" else None)
            assert record.upscaler is None  # bicubic interpolation is nobody's run
        assert len({record.key for record in records}) == len(self.CHANGES)

    def test_weights_of_an_upscaler_are_told(self, cell: Cell, untrained: Callable[[Cell], Cell], given: Path):
        record = Bench().evaluate(untrained(dataclasses.replace(cell, sr=str(given), pose="clean")))
        assert record.settings["upscaling"]["sha256"] == hashlib.sha256(given.read_bytes()).hexdigest()
        assert str(given.parent) not in json.dumps(record.to_json())
        assert record.upscaler is None
        assert record.call.sr == "given x4"

    @pytest.mark.filterwarnings("error")
    def test_the_backbone_of_weights_is_found_behind_an_upscaler(
        self, cell: Cell, untrained: Callable[[Cell], Cell], given: Path
    ):
        record = Bench().evaluate(untrained(dataclasses.replace(cell, sr=str(given), pose="clean")))
        assert record.call.backbone == "hrnet_w16"

    def test_run_of_an_upscaler_is_told(
        self, cell: Cell, untrained: Callable[[Cell], Cell], own_run: tuple[Path, Path, dict[str, Any]]
    ):
        runs, run, quality = own_run
        one = untrained(dataclasses.replace(cell, sr="srvgg_tiny", sr_epochs=1, pose="clean", runs=runs))
        record = Bench().evaluate(one)
        assert record.upscaler is not None
        settings = json.loads((run / "settings.json").read_text())
        assert record.upscaler == {**settings, "quality": quality}
        facts = {"upscaler": "srvgg_tiny", "scale": 4, "res": "16x12", "pairs": "bicubic", "epochs": 1, "persons": 9}
        assert facts.items() <= record.upscaler.items()
        assert quality["persons"] == 3
        assert record.cost.params_sr == sum(p.numel() for p in UPSCALERS["srvgg_tiny"].build(4).parameters())

    def test_a_method_alone_says_nothing_of_upscalers(self, cell: Cell, untrained: Callable[[Cell], Cell]):
        record = Bench().evaluate(untrained(cell))
        assert (record.call.sr, record.call.pose, record.upscaler) == ("none", "", None)
        assert "upscaling" not in record.settings


class TestTraining:
    def test_what_continues_a_clean_network(self, cell: Cell):
        behind = dataclasses.replace(cell, sr="srvgg_tiny")
        continued = {
            recipe: {pose for pose in POSES if dataclasses.replace(behind, recipe=recipe, pose=pose).continues_clean}
            for recipe in ("quick", "paper")
        }
        assert continued == {"quick": set(POSES) - {"clean"}, "paper": {"joint", "tdp"}}
        assert not cell.continues_clean
        assert not dataclasses.replace(behind, start=Path("weights.pth")).continues_clean
        assert not dataclasses.replace(behind, pretrained=("resnet50",)).continues_clean

    @pytest.mark.parametrize(("given", "expected"), [(None, 2), (3, 3)])
    def test_it_takes_a_share_of_its_epochs(self, cell: Cell, given: int | None, expected: int):
        behind = dataclasses.replace(cell, sr="srvgg_tiny", epochs=8, adapt_epochs=given)
        assert ADAPTED_SHARE * 8 == 2
        assert behind.training_recipe().epochs == expected
        assert dataclasses.replace(behind, pose="clean").training_recipe().epochs == 8

    def test_share_of_the_paper_s_own_epochs(self, cell: Cell):
        behind = dataclasses.replace(cell, sr="srvgg_tiny", pose="joint", recipe="paper", epochs=None)
        full = sum(stage.epochs for stage in behind.compose().stages)
        assert behind.training_recipe().epochs == round(0.25 * full)

    @pytest.mark.parametrize("name", ["epochs", "batch", "adapt_epochs", "sr_epochs"])
    def test_numbers_below_one(self, cell: Cell, name: str):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} 0: expected at least 1"):
            dataclasses.replace(cell, **{name: 0}).training_recipe()

    def test_clean_network_is_plain_and_of_its_own_rule(self, cell: Cell):
        behind = dataclasses.replace(
            cell, method="hrnet", sr="bicubic", align="dark", pose="up", lr_preset="antialias", degrade_train="mix",
            seed=3, settings={"sigma": 1.0},
        )  # fmt: skip
        clean = behind.clean_cell()
        assert (str(clean.res), clean.sr, clean.lr_preset, clean.degrade_train) == ("64x48", "none", "paper", "same")
        assert clean.compose().frame.align == "biased"
        assert (clean.seed, clean.settings, clean.runs, clean.epochs) == (3, {"sigma": 1.0}, cell.runs, 1)
        # so all rows of a comparison share one
        other = dataclasses.replace(behind, sr="lanczos", align=None, pose="clean", lr_preset="paper")
        assert other.clean_cell() == clean

    def test_whose_weights_a_row_has(self, cell: Cell):
        behind = dataclasses.replace(cell, sr="srvgg_tiny")
        assert cell.trained_as() is cell
        assert behind.trained_as() is behind
        clean = dataclasses.replace(behind, pose="clean")
        assert clean.trained_as() == clean.clean_cell()
        given = dataclasses.replace(clean, weights=Path("weights.pth"))
        assert given.trained_as() is given
        bicubic = dataclasses.replace(behind, pose="up").trained_as()
        assert (bicubic.sr, bicubic.pose) == ("bicubic", "up")

    def test_an_upscaler_is_trained_once_for_all_that_needs_it(self, cell: Cell):
        behind = dataclasses.replace(cell, sr="srvgg_tiny", sr_epochs=3, seed=2, lr_preset="antialias")
        wanted = behind.upscaler_cell()
        assert wanted is not None
        assert (wanted.upscaler, wanted.res, wanted.scale, wanted.epochs, wanted.seed) == (
            "srvgg_tiny", SMALL, 4, 3, 2
        )  # fmt: skip
        assert dataclasses.replace(behind, method="hrnet", pose="clean").upscaler_cell() == wanted
        assert cell.upscaler_cell() is None
        assert dataclasses.replace(cell, sr="bicubic").upscaler_cell() is None

    def test_a_file_need_not_be_trained(self, cell: Cell, given: Path):
        assert dataclasses.replace(cell, sr=str(given)).upscaler_cell() is None

    def test_without_leave_to_train_a_row_says_what_is_missing(self, cell: Cell):
        behind = dataclasses.replace(cell, sr="srvgg_tiny", pose="clean")
        row = run_row(Bench(), behind, may_train=False)[0]
        assert row["status"] == "missing"
        assert "run lrbench train srvgg_tiny --res 16x12 --scale 4 --data" in row["reason"]
        with pytest.raises(MissingWeights):
            Bench().evaluate(behind)
        assert not cell.runs.exists()

    @pytest.mark.parametrize("may_train", [True, False])
    def test_data_without_detail_is_a_row_that_says_so(self, cell: Cell, may_train: bool):
        behind = dataclasses.replace(cell, res=Size(64, 48), sr="srvgg_tiny", pose="clean")
        row = run_row(Bench(), behind, may_train=may_train)[0]
        assert row["status"] == "missing"
        assert "persons high enough to teach detail at 256x192 are in fewer than two pictures" in row["reason"]

    def test_a_comparison_trains_one_upscaler_and_one_clean_network(self, cell: Cell):
        items = plan_methods(
            dataclasses.replace(cell, sr_epochs=1),
            Selection(methods=["udp"], sizes=[SMALL], upscalers=["bicubic", "srvgg_tiny"], poses=["clean", "sr"]),
        )
        rows = run_planned(Bench(), items)["rows"]
        assert [row["status"] for row in rows] == ["done"] * 4
        assert [(row["sr"], row["pose"]) for row in rows] == [
            ("bicubic x4", "clean"), ("bicubic x4", "up"), ("srvgg_tiny x4", "clean"), ("srvgg_tiny x4", "sr")
        ]  # fmt: skip
        runs = Counter((path.parents[1].name, path.parents[2].name) for path in cell.runs.rglob("metrics.jsonl"))
        assert runs == {("srvgg_tiny", "16x12"): 1, ("udp", "64x48"): 1, ("udp", "16x12"): 2}
        assert {row["align"] for row in rows} == {"corner"}
        assert {row["upscaler"]["epochs"] for row in rows[2:]} == {1}
        assert [row["upscaler"] for row in rows[:2]] == [None, None]
        behind = cell.runs.glob("*/16x12/udp/*/settings.json")
        assert {json.loads(path.read_text())["start"].partition(" ")[0] for path in behind} == {"clean"}


class TestApi:
    def test_rows_of_compare(self, tiny_data: Path, tmp_path: Path):
        """As the command, whose repeatable options are sequences here."""
        options = {
            "recipe": "quick",
            "epochs": 1,
            "batch": 4,
            "runs": tmp_path / "runs",
            "results": tmp_path / "results",
        }
        document = lrbench.compare(
            ["udp"], "16x12", upscalers=["none", "lanczos"], poses=["clean", "mix"], presets=["paper", "antialias"],
            data=str(tiny_data), may_train=False, **options, **COMPUTING,
        )  # fmt: skip
        assert [(row["lr_preset"], row["sr"], row["pose"], row["align"]) for row in document["rows"]] == [
            (preset, *front, "corner")
            for preset in ("paper", "antialias")
            for front in (("none", ""), ("lanczos x4", "clean"), ("lanczos x4", "mix"))
        ]
        assert {row["status"] for row in document["rows"]} == {"missing"}

    def test_table_without_controls(self, tiny_data: Path, tmp_path: Path):
        options = {"recipe": "quick", "runs": tmp_path, "results": tmp_path, "may_train": False, **COMPUTING}
        rows = lrbench.compare(["cal"], table="cal/2", data=str(tiny_data), controls=False, **options)["rows"]
        assert [row["reported"]["ap"] for row in rows] == [0.584, 0.615]


class TestUpscalerCell:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"upscaler": "bicubic"}, "bicubic has nothing to train; use it by --sr bicubic"),
            ({"scale": 3}, "srvgg_tiny: scale 3; choose one of 2, 4"),
            ({"pairs": "real"}, "pairs 'real': expected bicubic or matched"),
            ({"upscaler": "esrgan"}, "give --features FILE"),
            ({"epochs": 0}, "epochs 0 of an upscaler: expected at least 1"),
            ({"recipe": "quik"}, "did you mean quick"),
            ({"lr_preset": "papr"}, "did you mean paper"),
            ({"device": "tpu"}, "--device tpu: expected auto, cpu or cuda"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], message: str):
        plain = UpscalerCell(upscaler="srvgg_tiny", res=SMALL, **COMPUTING)
        plain.check()
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(plain, **changes).check()

    @pytest.mark.parametrize(("data", "name"), [("synth", "quick"), ("coco", "paper")])
    def test_recipe_of_the_data(self, data: str, name: str):
        assert UpscalerCell(upscaler="srvgg_tiny", res=SMALL, data=data).training_recipe().name == name
