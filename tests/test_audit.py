"""Audits: every choice changes what it says and nothing else, and the declared row is the record's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lrbench import evaluation
from lrbench.audit import (
    Audit,
    Reading,
    Row,
    audit,
    decoders_of,
    flip_tests,
    read_all,
    readings_of,
    refinements,
    scored_otherwise,
)
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.codecs.heatmap import Heatmap, Heatmaps, argmax
from lrbench.codecs.offset import HeatmapOffset, OffsetMaps
from lrbench.datasets.coco import Dataset, read
from lrbench.datasets.images import ImageStore
from lrbench.degradation import load_preset
from lrbench.geometry import Frame, Grid, Size
from lrbench.inference import predict
from lrbench.loading import Crops
from lrbench.method import load_method
from lrbench.models.network import initialise
from lrbench.statistics import Difference
from lrbench.structures import Keypoints, Predictions, Rescoring, mirror_index

SMALL, LARGE = Size(64, 48), Size(256, 192)
FLIPS = ["none", "flip", "flip, shifted by 1"]
STEPS = ["argmax", "quarter", "taylor"]
CHOICES = {
    "hrnet": ("flip, shifted by 1", FLIPS, "quarter", STEPS),
    "simplebaseline": ("flip, shifted by 1", FLIPS, "quarter", STEPS),
    "dark": ("flip", FLIPS, "taylor", STEPS),
    "udp": ("flip", FLIPS, "offset", STEPS),
    "cal": ("flip", FLIPS, "offset", STEPS),
    "grmi": ("flip", FLIPS, "HoughVoting", []),
    "srpose": ("flip", FLIPS, "quarter", STEPS),
    "simcc": ("flip, shifted by 2", [*FLIPS, "flip, shifted by 2"], "AxisBins", []),
    "integral": ("flip", FLIPS, "expectation", STEPS),
    "debias": ("flip", ["none", "flip"], "expectation", STEPS),
    "deeppose": ("flip", ["none", "flip"], "PlainRegression", []),
    "rle": ("flip", ["none", "flip"], "LikelyPosition", []),
    "meanpose": ("flip", ["none", "flip"], "CropCoordinates", []),
}
"""Declared flip test, all that exist, declared decoder, and the others, at 64x48."""


def joints(size: Size, margin: int) -> Tensor:
    """Keypoints (8, 17, 2), crop px, away from the border."""
    generator = torch.Generator().manual_seed(0)
    span = torch.tensor([size.width, size.height]) - 1 - 2 * margin
    return (margin + torch.rand(8, 17, 2, generator=generator) * span).double()


def mirrored(keypoints: Tensor, size: Size) -> Tensor:
    """The same persons in mirrored crops."""
    x, y = keypoints[:, mirror_index()].unbind(-1)
    return torch.stack([size.width - 1 - x, y], -1)


def noisy(prediction: Any, seed: int) -> Any:
    """A prediction as a network might emit it: no two cells alike."""
    generator = torch.Generator().manual_seed(seed)
    fields = (0.8 * field.clamp(-30, 30) + 0.2 * torch.rand(field.shape, generator=generator) for field in prediction)
    return type(prediction)(*fields)


class Centroid:
    """Reads the centre of mass of a map, in cells: moves as the map does."""

    def decode(self, prediction: Heatmaps) -> Keypoints:
        maps = prediction.heatmap.double()
        total = maps.sum((-2, -1))
        x = (maps.sum(-2) * torch.arange(maps.shape[-1])).sum(-1) / total
        y = (maps.sum(-1) * torch.arange(maps.shape[-2])).sum(-1) / total
        return Keypoints(torch.stack([x, y], -1), total)


@pytest.mark.parametrize(
    ("align", "moved"),
    [
        # protocol.md, section 5: 0.75 cells to the left at stride 4, halved by averaging, half a cell back by a shift
        ("biased", {"none": 0.0, "flip": -0.375, "flip, shifted by 1": 0.125}),
        ("dark", {"none": 0.0, "flip": 0.0, "flip, shifted by 1": 0.5}),
        ("corner", {"none": 0.0, "flip": 0.0, "flip, shifted by 1": 0.5}),
    ],
)
def test_flip_tests_move_perfect_maps_as_the_alignment_says(align: Any, moved: dict[str, float]):
    frame = Frame(LARGE, align)
    codec = Heatmap(grid=Grid(frame, stride=4), sigma=2.0, center="exact", window=False, refine=argmax)
    keypoints = joints(LARGE, 60)
    plain, _ = codec.encode(keypoints, torch.ones(8, 17))
    back, _ = codec.encode(mirrored(keypoints, LARGE), torch.ones(8, 17))
    truth = Centroid().decode(plain).xy
    _, tests = flip_tests(codec)
    assert set(tests) == set(moved)
    for name, mirror in tests.items():
        away = Reading(mirror=mirror, decoder=Centroid())(plain, back, mirror_index()).xy - truth
        torch.testing.assert_close(away[..., 0], torch.full_like(away[..., 0], moved[name]), atol=1e-4, rtol=0)
        torch.testing.assert_close(away[..., 1], torch.zeros_like(away[..., 1]), atol=1e-4, rtol=0)


def test_shift_moves_all_fields_of_offset_maps_and_keeps_their_first_column():
    codec = load_method("cal", SMALL, "hrnet_w16").codec
    prediction, _ = codec.encode(joints(SMALL, 4), torch.ones(8, 17))
    prediction = noisy(prediction, 0)
    _, tests = flip_tests(codec)
    still, moved = (tests[name].unflip(prediction, mirror_index()) for name in ("flip", "flip, shifted by 1"))
    for a, b in zip(still, moved, strict=True):
        assert torch.equal(b[..., 1:], a[..., :-1])
        assert torch.equal(b[..., 0], a[..., 0])
    assert torch.equal(still.offset[:, :, 0], -prediction.offset[:, mirror_index(), 0].flip(-1))


def test_shifts_of_bins():
    """A mirrored-back axis of three bins per px lies two bins too high; one bin is what the released code takes off."""
    codec = load_method("simcc", SMALL, "hrnet_w16").codec
    keypoints = joints(SMALL, 4).round()
    back, _ = codec.encode(mirrored(keypoints, SMALL), torch.ones(8, 17))
    for name, bins in {"flip": 2, "flip, shifted by 1": 1, "flip, shifted by 2": 0}.items():
        mirror = flip_tests(codec)[1][name]
        away = codec.decode(mirror.unflip(back, mirror_index())).xy - keypoints
        torch.testing.assert_close(away[..., 0], torch.full((8, 17), bins / 3, dtype=away.dtype), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_a_method(name: str):
    codec = load_method(name, SMALL).codec
    shift, tests = flip_tests(codec)
    decoder, decoders = decoders_of(codec)
    assert (shift, list(tests), decoder, list(decoders)) == CHOICES[name]


@pytest.mark.parametrize("sr", [None, "bicubic"])
@pytest.mark.parametrize("name", [name for name in CHOICES if name != "meanpose"])
def test_every_other_reading_changes_positions_and_none_changes_the_declared_one(name: str, sr: str | None):
    codec = load_method(name, SMALL, sr=sr).codec
    keypoints = joints(SMALL, 4)
    plain, _ = codec.encode(keypoints, torch.ones(8, 17))
    # a network sees a mirrored person a little elsewhere
    back, _ = codec.encode(mirrored(keypoints + 1.5, SMALL), torch.ones(8, 17))
    plain, back = noisy(plain, 1), noisy(back, 2)
    declared = Reading(mirror=codec, decoder=codec)
    expected = codec.decode(codec.average(plain, codec.unflip(back, mirror_index())))
    found = declared(plain, back, mirror_index())
    assert torch.equal(found.xy, expected.xy) and torch.equal(found.score, expected.score)
    (flip, decoder), readings = readings_of(codec, declared)
    assert not {("flip", flip), ("decoder", decoder)} & set(readings)
    for choice, reading in readings.items():
        other = reading(plain, back, mirror_index())
        assert not torch.equal(other.xy, expected.xy), choice
        assert other.xy.shape == expected.xy.shape
        if choice[0] == "decoder":  # where a person is, not how sure that is
            assert torch.equal(other.score, expected.score), choice


@pytest.mark.parametrize("name", ["hrnet", "cal", "simcc", "rle"])
def test_the_declared_flip_test_is_one_of_those_that_are_offered(name: str):
    codec = load_method(name, SMALL).codec
    plain, _ = codec.encode(joints(SMALL, 4), torch.ones(8, 17))
    back = noisy(plain, 3)
    declared, tests = flip_tests(codec)
    for a, b in zip(tests[declared].unflip(back, mirror_index()), codec.unflip(back, mirror_index()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [SMALL, Size(128, 96), Size(192, 144), LARGE, Size(384, 288)])
def test_decoders_are_those_of_the_methods_that_have_them(size: Size):
    """A method read by another one's decoder is that method built with that decoder."""
    hrnet, dark = load_method("hrnet", size).codec, load_method("dark", size).codec
    plain, _ = hrnet.encode(joints(size, 2), torch.ones(8, 17))
    prediction = noisy(plain, 4)
    _, decoders = decoders_of(hrnet)
    expected = {
        "argmax": load_method("hrnet", size, step="none").codec,
        "quarter": hrnet,
        "taylor": dataclasses.replace(hrnet, refine=dark.refine),
    }
    for name, codec in expected.items():
        assert torch.equal(decoders[name].decode(prediction).xy, codec.decode(prediction).xy), name
    quarter = decoders_of(dark)[1]["quarter"].decode(prediction).xy
    assert torch.equal(quarter, dataclasses.replace(dark, refine=hrnet.refine).decode(prediction).xy)
    assert not torch.equal(quarter, dark.decode(prediction).xy)


@pytest.mark.parametrize("name", ["udp", "cal"])
def test_offset_maps_read_without_their_offsets(name: str):
    codec: HeatmapOffset = load_method(name, SMALL, "hrnet_w16").codec
    plain, _ = codec.encode(joints(SMALL, 2), torch.ones(8, 17))
    prediction = noisy(plain, 5)
    flat = codec.decode(OffsetMaps(prediction.heatmap, torch.zeros_like(prediction.offset)))
    found = decoders_of(codec)[1]["argmax"].decode(prediction)
    assert torch.equal(found.xy, flat.xy)
    assert torch.equal(found.score, codec.decode(prediction).score)


def test_integral_maps_read_at_their_peak():
    codec = load_method("integral", SMALL, "hrnet_w16").codec
    plain, _ = codec.encode(joints(SMALL, 2), torch.ones(8, 17))
    prediction = noisy(plain, 6)
    index = prediction.logits.flatten(2).argmax(-1)
    cells = torch.stack([index % 12, index // 12], -1).double()
    expected = (cells - torch.tensor(codec.grid.offset)) * torch.tensor(codec.grid.pitch)
    found = decoders_of(codec)[1]["argmax"].decode(prediction)
    torch.testing.assert_close(found.xy, expected.float())
    assert torch.equal(found.score, codec.decode(prediction).score)


def test_a_foreign_refinement_has_its_own_name():
    def center_of_mass_step(maps: Tensor, cells: Tensor) -> Tensor:
        return cells.to(maps.dtype)

    codec = load_method("hrnet", SMALL, "hrnet_w16").codec
    assert decoders_of(dataclasses.replace(codec, refine=center_of_mass_step))[0] == "center_of_mass"
    assert decoders_of(load_method("udp", SMALL, "hrnet_w16", form="gaussian").codec)[0] == "taylor_udp"
    assert list(refinements(SMALL)) == STEPS


def predictions() -> Predictions:
    """Two pictures: three persons, of whom two are the same; and two that are not."""
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(0, 100, (5, 17, 2)), rng.uniform(0.1, 1, (5, 17, 1))], -1)
    keypoints[1, :, :2] = keypoints[0, :, :2]
    score = np.array([0.9, 0.8, 0.7, 0.5, 0.5])
    return Predictions(np.array([7, 7, 7, 3, 3]), keypoints, np.full(5, 1e4), score)


def test_scores_and_suppression():
    given = predictions()
    others = scored_otherwise(given, Rescoring())
    assert list(others) == ["box scores, NMS", "rescored, no NMS", "box scores, no NMS"]
    box = [(r["image_id"], r["score"]) for r in others["box scores, NMS"]]
    assert sorted(box) == [(3, 0.5), (3, 0.5), (7, 0.7), (7, 0.9)]
    everyone = sorted((r["image_id"], r["score"]) for r in others["box scores, no NMS"])
    assert everyone == [(3, 0.5), (3, 0.5), (7, 0.7), (7, 0.8), (7, 0.9)]
    counted = [(given.keypoints[i, :, 2] > 0.2) for i in range(5)]
    mean = [given.box_score[i] * given.keypoints[i, c, 2].mean() for i, c in enumerate(counted)]
    found = {tuple(r["keypoints"]): (r["image_id"], r["score"]) for r in others["rescored, no NMS"]}
    expected = {tuple(given.keypoints[i].ravel()): (int(given.image_id[i]), pytest.approx(mean[i])) for i in range(5)}
    assert found == expected


def test_without_suppression_equal_scores_keep_the_order_that_suppression_leaves():
    """COCO breaks ties by order, and with annotated boxes all box scores are ties."""
    rng = np.random.default_rng(1)
    n = 12
    keypoints = np.concatenate([rng.uniform(0, 1000, (n, 17, 2)), np.ones((n, 17, 1))], -1)
    given = Predictions(rng.integers(0, 3, n), keypoints, np.full(n, 1e3), np.ones(n))
    with_nms, without = (evaluation.to_results(given, nms=nms) for nms in (evaluation.OKS_NMS, 1.0))
    assert len(with_nms) == len(without) == n
    for picture in range(3):
        rows = [[r for r in results if r["image_id"] == picture] for results in (with_nms, without)]
        assert rows[0] == rows[1]


def test_sum_rule_without_rescoring_is_the_box_score_too():
    by_box = scored_otherwise(predictions(), Rescoring(form="sum"))["box scores, no NMS"]
    assert sorted(r["score"] for r in by_box) == [0.5, 0.5, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("name", "sr"), [("hrnet", None), ("cal", None), ("simcc", None), ("hrnet", "bicubic")])
def test_declared_reading_is_predict_to_the_last_digit(tiny_data: Path, name: str, sr: str | None, flip: bool):
    size = Size(32, 24) if sr else SMALL
    method = load_method(name, size, "hrnet_w16", sr)
    dataset = read(tiny_data, "val")
    model = method.build_model()
    initialise(model.network, "residual", torch.Generator().manual_seed(0))
    crops = Crops(ImageStore(dataset.images), dataset.persons, method.frame, load_preset("paper"))
    expected = predict(method, model, crops, flip=flip, batch=4, workers=0)
    declared = Reading(mirror=method.codec if flip else None, decoder=method.codec)
    (_, _), readings = readings_of(method.codec, declared)
    found, *others = read_all(model, crops, [declared, *readings.values()], flip=flip, batch=4, workers=0)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    np.testing.assert_array_equal(found.area, expected.area)
    assert not any(np.array_equal(other.keypoints, expected.keypoints) for other in others)
    # the flip test that was not declared is the one that predict would have made
    other = predict(method, model, crops, flip=not flip, batch=4, workers=0)
    named = ("flip", "none" if flip else flip_tests(method.codec)[0])
    np.testing.assert_allclose(others[list(readings).index(named)].keypoints, other.keypoints, atol=1e-3)


def cell(data: Path, runs: Path, results: Path, method: str, **changes: Any) -> Cell:
    options = {"recipe": "quick", "epochs": 1, "batch": 4, "device": "cpu", "precision": "32-true", "workers": 0}
    return Cell(method=method, res=SMALL, data=str(data), runs=runs, results=results, **(options | changes))


@pytest.fixture
def detections(tmp_path: Path, tiny_data: Path) -> Path:
    """Every person twice, the second time a little off, in one file."""
    persons, images = read(tiny_data, "val").persons, read(tiny_data, "val").images
    rows = [
        {
            "image_id": int(images.id[image]),
            "category_id": 1,
            "bbox": [box[0] + off, box[1] + off, box[2], box[3]],
            "score": score,
        }
        for image, box in zip(persons.image, persons.box.tolist(), strict=True)
        for off, score in ((0, 0.9), (6, 0.5))
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"boxes": True}])
@pytest.mark.parametrize("method", ["hrnet", "meanpose"])
def test_declared_row_is_the_record_and_others_are_cells_with_one_change(
    tiny_data: Path, trained: Path, tmp_path: Path, detections: Path, method: str, changes: dict[str, Any]
):
    results = tmp_path / "r"
    changes = changes | ({"boxes": str(detections)} if "boxes" in changes else {})
    given = cell(tiny_data, trained, results, method, **changes)
    bench = Bench()
    record = bench.evaluate(given)
    before = sorted((p, p.read_bytes()) for p in results.rglob("*") if p.is_file())
    found = audit(bench, given, record)
    assert sorted((p, p.read_bytes()) for p in results.rglob("*") if p.is_file()) == before
    assert record.metrics.ap is not None
    declared = [row for row in found.rows if row.declared]
    assert [row.group for row in declared] == ["flip", "decoder", "scores", "boxes"]
    assert all(row.metrics == record.metrics and row.difference is None for row in declared)
    for row in found.rows:
        if row.metrics is not None and not row.declared:
            assert row.difference.value == pytest.approx(row.metrics.ap - record.metrics.ap, abs=1e-12)
    by_name = {(row.group, row.value): row for row in found.rows}
    if given.flip:
        assert by_name["flip", "none"].metrics == bench.evaluate(dataclasses.replace(given, flip=False)).metrics
    if method == "hrnet":
        weights = next(trained.rglob("hrnet/*/weights.safetensors"))
        plain = dataclasses.replace(given, settings={"step": "none"}, weights=weights)
        assert by_name["decoder", "argmax"].metrics == bench.evaluate(plain).metrics
    else:
        assert by_name["decoder", "taylor"].metrics is None
        assert by_name["decoder", "taylor"].reason.startswith("does not apply: CropCoordinates")
        assert by_name["flip", "flip, shifted by 1"].reason.startswith("does not apply")
    if given.boxes == "gt":
        assert by_name["boxes", "detections"].reason == "no detection file given: --boxes FILE"
    else:
        assert by_name["boxes", "boxes.json"].declared
        assert by_name["boxes", "gt"].metrics == bench.evaluate(dataclasses.replace(given, boxes="gt")).metrics
    document = found.to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["key"] == record.key
    assert document["protocol"]["boxes"] == record.protocol.boxes
    assert document["weights_sha256"] == record.provenance.weights_sha256
    assert len(document["rows"]) == len(found.rows)


@pytest.mark.parametrize("metric", ["pck", "pckh"])
def test_data_without_ap_are_refused(tiny_data: Path, trained: Path, tmp_path: Path, metric: Any):
    class Other(Bench):
        def dataset(self, data: str, split: str) -> Dataset:
            dataset = super().dataset(data, split)
            return dataclasses.replace(dataset, rules=dataclasses.replace(dataset.rules, metric=metric))

    weights = next(trained.rglob("meanpose/*/weights.safetensors"))
    given = cell(tiny_data, trained, tmp_path / "r", "meanpose", weights=weights)
    record = Bench().evaluate(given)
    with pytest.raises(ValueError, match=f"scored by {metric}, not by AP"):
        audit(Other(), given, record)


def warned(**gains: tuple[float, float]) -> list[str]:
    """Warnings where other values have these differences and lower ends of intervals, by choice."""
    rows = [Row(group=g, value="declared one", declared=True) for g in ("flip", "decoder", "scores", "boxes")]
    for group, (value, low) in gains.items():
        gain = Difference("ap", value, low, 2 * value - low)
        rows += [Row(group=group, value="best", difference=gain), Row(group=group, value="absent")]
        rows.append(Row(group=group, value="worse", difference=Difference("ap", value - 0.01, -1.0, 1.0)))
    return Audit(record=None, rows=tuple(rows)).warnings  # type: ignore[arg-type]


def test_warnings():
    assert warned(flip=(-0.01, -0.02), decoder=(0.0, -0.1)) == []
    assert warned(flip=(0.003, 0.001), scores=(0.002, -0.001)) == [
        'flip test: declared "declared one" is not the best here: "best" is +0.3 AP (resolved)',
        'person scores: declared "declared one" is not the best here: "best" is +0.2 AP (not resolved)',
    ]
    assert warned(boxes=(0.1, 0.05)) == []  # no rule of the method
    assert warned(decoder=(0.0004, 0.0003)) == []  # would print as +0.0
