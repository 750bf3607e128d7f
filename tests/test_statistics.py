"""Resampling: equal to pycocotools on the images drawn, intervals of known width, paired differences."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_evaluation import random_set

from lrbench import statistics
from lrbench.datasets.images import DataError
from lrbench.evaluation import accumulated
from lrbench.records import METRICS
from lrbench.statistics import Difference, Matches, Seeds, bootstrap, difference, draw, interval, intervals

FEW = 50  # resamples, where their number does not matter


def scored(truth: dict, results: list[dict]) -> tuple[Matches, list[float | None]]:
    """Matches, and pycocotools' own numbers."""
    evaluator = accumulated(truth, results)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.summarize()
    return Matches.of(evaluator), [None if v == -1 else v for v in evaluator.stats.tolist()]


def copied(truth: dict, results: list[dict], weights: np.ndarray) -> tuple[dict, list[dict]]:
    """The set with each image there as often as its weight says, copies side by side."""
    images, people, found = [], [], []
    for image, weight in zip(sorted(truth["images"], key=lambda i: i["id"]), weights.tolist(), strict=True):
        for _ in range(weight):
            new = len(images) + 1
            images.append({**image, "id": new})
            people += [{**a, "image_id": new} for a in truth["annotations"] if a["image_id"] == image["id"]]
            found += [{**r, "image_id": new} for r in results if r["image_id"] == image["id"]]
    people = [{**a, "id": n} for n, a in enumerate(people, 1)]
    return {**truth, "images": images, "annotations": people}, found


def same(ours: dict[str, float | None], theirs: list[float | None], tolerance: float = 1e-12) -> None:
    assert list(ours) == list(METRICS)
    assert [v is None for v in ours.values()] == [v is None for v in theirs]
    assert [v for v in ours.values() if v is not None] == pytest.approx(
        [v for v in theirs if v is not None], rel=0, abs=tolerance
    )


def hits(found: np.ndarray, score: np.ndarray | None = None) -> Matches:
    """One person and one detection per image, right or wrong at the one threshold 0.5: AR50 is the share found."""
    order = np.argsort(-score, kind="stable") if score is not None else np.arange(len(found))
    return Matches(
        images=np.arange(len(found)),
        areas=("all",),
        thresholds=np.array([0.5]),
        image=order.astype(np.int32),
        score=np.linspace(1, 0, len(found)) if score is None else score[order],
        matched=found[order].astype(bool)[None, None],
        ignored=np.zeros((1, 1, len(found)), bool),
        persons=np.ones((1, len(found)), np.int32),
    )


def test_sets_have_what_is_hard():
    truth, results = random_set(0)
    people = truth["annotations"]
    assert {a["iscrowd"] for a in people} == {0, 1}
    assert any(not a["num_keypoints"] and not a["iscrowd"] for a in people)
    assert {(a["area"] > 32**2) + (a["area"] > 96**2) for a in people} == {0, 1, 2}
    assert max(sum(r["image_id"] == i["id"] for r in results) for i in truth["images"]) > 20
    matches, _ = scored(truth, results)
    assert set(range(12)) - set(matches.image.tolist())  # no detections
    assert (matches.persons[0] == 0).any() and matches.ignored.any()
    assert len(matches.score) > len(set(matches.score)) > 1
    right = matches.matched & ~matches.ignored
    tied = (np.diff(matches.image) == 0) & (np.diff(matches.score) == 0)
    assert (tied & (right[..., 1:] != right[..., :-1])).any()  # right and wrong at one score in one image


@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools(seed: int):
    matches, theirs = scored(*random_set(seed, pictures=24))
    same(matches.metrics(), theirs)
    same(matches.metrics(np.ones(24, int)), theirs)
    assert 0.05 < theirs[0] < 0.95


@pytest.mark.parametrize("decimals", [0, 1, 6])
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_copies_of_images(seed: int, decimals: int):
    truth, results = random_set(seed)
    rng = np.random.default_rng(seed)
    if decimals != 1:  # 0: nearly all scores equal; 6: none
        results = [{**r, "score": round(rng.random() if decimals else r["score"], decimals)} for r in results]
    matches, _ = scored(truth, results)
    for most in (1, 2, 6):
        weights = rng.integers(0, most + 1, 12)
        weights[3] = most  # somebody is there
        same(matches.metrics(weights), scored(*copied(truth, results, weights))[1])


def test_tie_of_right_and_wrong_is_written_out_copy_by_copy():
    matches = dataclasses.replace(
        hits(np.array([1, 0])), image=np.zeros(2, np.int32), score=np.ones(2), persons=np.array([[1, 0]], np.int32)
    )
    # right, wrong, right, wrong: half the recall at precision 1, the rest at 2/3
    assert matches.metrics(np.array([2, 0]))["ap50"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)
    apart = dataclasses.replace(matches, image=np.array([0, 1], np.int32))  # a tie with another image is none
    assert apart.metrics(np.array([2, 2]))["ap50"] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("block", [1, 64, 1 << 16])
def test_many_draws_are_each_by_itself(monkeypatch: pytest.MonkeyPatch, block: int):
    monkeypatch.setattr(statistics, "_BLOCK", block)
    matches, theirs = scored(*random_set(3))
    weights = np.concatenate([draw(12, 20, 0), np.ones((1, 12), np.int32)])
    samples = matches.resampled(weights)
    assert samples.shape == (21, 10)
    for row, drawn in zip(samples.tolist(), weights, strict=True):
        same(matches.metrics(drawn), [None if np.isnan(v) else v for v in row], 0)  # to the last digit
    same(matches.metrics(), samples[-1].tolist(), 0)
    same(matches.metrics(), theirs)


def test_flags_choose_a_subset():
    truth, results = random_set(5)
    matches, _ = scored(truth, results)
    chosen = matches.images % 2 == 1
    same(matches.metrics(chosen), scored(*copied(truth, results, chosen.astype(int)))[1])


def test_one_range_gives_the_numbers_it_has():
    truth, results = random_set(2)
    everything = scored(truth, results)[0].metrics()
    metrics = Matches.of(accumulated(truth, results, areas=("all",))).metrics()
    for name, value in metrics.items():
        assert value == (None if name.endswith(("_m", "_l")) else everything[name])
    medium = Matches.of(accumulated(truth, results, areas=("medium",)))
    precision, recall = medium.accumulate(np.ones((1, 12), int))
    assert precision.shape == recall.shape == (1, 1, 10)
    assert precision.mean() == pytest.approx(everything["ap_m"], abs=1e-12)
    assert recall.mean() == pytest.approx(everything["ar_m"], abs=1e-12)


def test_number_that_coco_does_not_have_is_none():
    truth, results = random_set(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] < 96**2]
    matches, theirs = scored(truth, results)
    same(matches.metrics(), theirs)
    assert matches.metrics()["ap_l"] is None
    nobody = np.zeros(12, int)
    assert set(matches.metrics(nobody).values()) == {None}
    nobody[1] = 1  # a picture with a result and nobody in it
    assert set(matches.metrics(nobody).values()) == {None}
    samples = bootstrap(matches, resamples=FEW)
    assert np.isnan(samples[:, [METRICS.index("ap_l"), METRICS.index("ar_l")]]).all()
    assert set(intervals(samples)) == set(METRICS) - {"ap_l", "ar_l"}


def test_no_detections():
    truth, _ = random_set(0)
    matches, theirs = scored(truth, [])
    same(matches.metrics(), theirs)
    assert set(theirs) == {0.0}
    nothing = dataclasses.replace(
        matches, image=matches.image[:0], score=matches.score[:0], matched=matches.matched[..., :0],
        ignored=matches.ignored[..., :0],
    )  # fmt: skip
    assert set(nothing.metrics().values()) == {0.0}


@pytest.mark.golden
def test_golden_sets(golden):
    results = json.loads((golden.root / "scoring/dt.json").read_text())
    for key, gt in (("dt", "gt"), ("dt_vs_gt_no_large", "gt_no_large")):
        truth = json.loads((golden.root / f"scoring/{gt}.json").read_text())
        matches, theirs = scored(truth, results)
        same(matches.metrics(), theirs)
        same(matches.metrics(), [v if v > -1 else None for v in golden.json("scoring/expected_stats")[key]], 1e-9)


@pytest.mark.coco
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_published_results(coco_slice: Path, name: str):
    folder = coco_slice.parent / "evaluator-fixtures"
    if not folder.is_dir():
        pytest.skip("no evaluator-fixtures beside the folder that LRBENCH_COCO names")
    data = f"lightweight_openpose_val2017subset/results_{name}"
    facts = json.loads((folder / "expected.json").read_text())["fixtures"][data]
    truth = json.loads((folder / data).with_name("gt.json").read_text())
    matches, theirs = scored(truth, json.loads((folder / f"{data}.json").read_text()))
    same(matches.metrics(), theirs)
    same(matches.metrics(), list(facts["stats"].values()), 1e-6)
    first = np.arange(len(matches.images)) < 60
    same(matches.metrics(first), list(facts["stats_first_60_image_ids"].values()), 1e-6)


def test_wrong_use():
    truth, results = random_set(0)
    evaluator = accumulated(truth, results)
    matches = Matches.of(evaluator)
    for weights in (np.ones(11, int), np.ones(12)):
        with pytest.raises(ValueError, match="expected a whole number for each of 12 images"):
            matches.metrics(weights)
    with pytest.raises(ValueError, match="0 or more"):
        matches.metrics(np.arange(12) - 1)
    evaluator._paramsEval.catIds = [1, 2]
    with pytest.raises(ValueError, match="2 categories"):
        Matches.of(evaluator)
    evaluator._paramsEval.catIds, evaluator._paramsEval.recThrs = [1], np.linspace(0, 1, 11)
    with pytest.raises(ValueError, match="11 recalls"):
        Matches.of(evaluator)
    evaluator.evalImgs = []
    with pytest.raises(ValueError, match="call its evaluate"):
        Matches.of(evaluator)


@pytest.mark.parametrize("empty", [False, True])
def test_saved_and_loaded(tmp_path: Path, empty: bool):
    matches, _ = scored(*random_set(0))
    if empty:
        matches = dataclasses.replace(
            matches, image=matches.image[:0], score=matches.score[:0], matched=matches.matched[..., :0],
            ignored=matches.ignored[..., :0],
        )  # fmt: skip
    path = tmp_path / "a.matches.safetensors"
    matches.save(path)
    again = Matches.load(path)
    for field in dataclasses.fields(Matches):
        old, new = getattr(matches, field.name), getattr(again, field.name)
        if field.name == "areas":
            assert old == new
        else:
            assert old.dtype == new.dtype and np.array_equal(old, new)
    assert again.metrics() == matches.metrics()
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_file_is_small(tmp_path: Path):
    matches = hits(np.ones(8000))
    matches.save(tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 8000 * (8 + 4 + 8 + 4 + 2 / 8) + 1000


def test_damaged_file(tmp_path: Path):
    matches, _ = scored(*random_set(0))
    path = tmp_path / "a.matches.safetensors"
    with pytest.raises(DataError, match=r"a\.matches\.safetensors does not exist"):
        Matches.load(path)
    matches.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for damaged in (whole[:-1], whole[: len(whole) // 2], bytes(flipped), b"", b"x" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"^[^\n]*a\.matches\.safetensors is damaged[^\n]*$"):
            Matches.load(path)
    for metadata in (None, {"matches": "{}"}, {"matches": "7"}):
        save_file({"score": np.zeros(3)}, path, metadata)
        with pytest.raises(DataError, match="is damaged or no file of matches"):
            Matches.load(path)


def test_draws():
    counts = draw(40, 3000, 7)
    assert counts.shape == (3000, 40) and set(counts.sum(1).tolist()) == {40}
    np.testing.assert_array_equal(counts, draw(40, 3000, 7))
    np.testing.assert_array_equal(counts[:10], draw(40, 10, 7))
    assert (counts != draw(40, 3000, 8)).any()
    # multinomial: every image once on average, variance 1 - 1/I
    assert counts.mean(0) == pytest.approx(np.ones(40), abs=5 * np.sqrt(1 / 3000))
    assert counts.var() == pytest.approx(1 - 1 / 40, rel=0.03)
    for images, resamples in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="at least one of each"):
            draw(images, resamples, 0)


def test_spread_is_that_of_a_share():
    """AR50 of one person per image is a share p of I images: standard error sqrt(p (1 - p) / I)."""
    found = np.arange(400) < 120
    samples = bootstrap(hits(found), resamples=4000, seed=1)[:, METRICS.index("ar50")]
    error = np.sqrt(0.3 * 0.7 / 400)
    assert samples.mean() == pytest.approx(0.3, abs=5 * error / np.sqrt(4000))
    assert samples.std() == pytest.approx(error, rel=0.05)
    low, high = interval(samples)
    assert (low, high) == pytest.approx((0.3 - 1.96 * error, 0.3 + 1.96 * error), abs=0.005)


def test_persons_of_a_picture_stay_together():
    """Twins in every picture: the interval is that of the pictures, not sqrt(2) narrower."""
    found = np.arange(400) < 120
    one = hits(found)
    twins = dataclasses.replace(
        one, image=np.repeat(one.image, 2), score=np.repeat(one.score, 2), matched=np.repeat(one.matched, 2, -1),
        ignored=np.repeat(one.ignored, 2, -1), persons=2 * one.persons,
    )  # fmt: skip
    np.testing.assert_array_equal(
        bootstrap(twins, resamples=FEW)[:, METRICS.index("ar50")],
        bootstrap(one, resamples=FEW)[:, METRICS.index("ar50")],
    )


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    weights = draw(100, 400, 0)
    covered = 0
    for _ in range(300):
        low, high = interval(hits(rng.random(100) < 0.4).resampled(weights)[:, METRICS.index("ar50")])
        covered += low <= 0.4 <= high
    assert 0.90 < covered / 300 < 0.98  # the percentile interval of 100 images is a little short of 0.95


def test_interval_leaves_out_what_is_not_defined():
    values = np.arange(1001.0)
    assert interval(values) == pytest.approx((25, 975))
    assert interval(np.append(values, [np.nan] * 500)) == pytest.approx((25, 975))
    assert interval(np.full(5, np.nan)) is None
    samples = np.column_stack([values] * 10)
    samples[:, 3] = np.nan
    assert METRICS[3] == "ap_m" and set(intervals(samples)) == set(METRICS) - {"ap_m"}
    assert intervals(samples)["ar"] == pytest.approx((25, 975))


def three(seed: int, share: float, images: int = 300) -> list[Matches]:
    rng = np.random.default_rng(seed)
    return [hits(rng.random(images) < share) for _ in range(3)]


def test_seeds():
    runs = three(0, 0.5)
    seeds = Seeds.of(runs, resamples=FEW, seed=3)
    shares = [run.metrics()["ar50"] for run in runs]
    assert seeds.values[:, METRICS.index("ar50")].tolist() == shares
    np.testing.assert_array_equal(seeds.samples[1], bootstrap(runs[1], resamples=FEW, seed=3))
    summary = seeds.summary()
    assert set(summary) == {"ap", "ap50", "ar", "ar50"}  # one threshold, one range
    found = summary["ar50"]
    assert found.n == 3
    assert found.mean == pytest.approx(np.mean(shares))
    assert found.std == pytest.approx(np.sqrt(sum((s - np.mean(shares)) ** 2 for s in shares) / 2))
    assert (found.smallest, found.largest) == (min(shares), max(shares))
    mean = sum(bootstrap(run, resamples=FEW, seed=3)[:, METRICS.index("ar50")] for run in runs) / 3
    assert (found.low, found.high) == pytest.approx(interval(mean))
    assert Seeds.of(runs[:1], resamples=FEW).summary()["ar50"].std is None


def test_difference_is_paired():
    """Of two methods that err on the same pictures but a few, the difference has only the error of these few."""
    rng = np.random.default_rng(0)
    first = rng.random(500) < 0.5
    second = first.copy()
    second[np.flatnonzero(~first)[:20]] = True
    a, b = (Seeds.of([hits(found)], resamples=4000) for found in (second, first))
    found = difference(a, b, "ar50")
    error = np.sqrt(0.04 * 0.96 / 500)  # of a share of 20 in 500, where two shares by themselves had 3.6 times as much
    assert found.value == pytest.approx(0.04)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert found.resolved
    assert found.seed_error is found.seed_low is found.seed_high is None
    back = difference(b, a, "ar50")
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    assert back.resolved


def test_difference_to_itself_is_nothing():
    matches, _ = scored(*random_set(0))
    runs = Seeds.of([matches], resamples=FEW)
    assert difference(runs, runs) == Difference("ap", 0, 0, 0)
    assert not difference(runs, runs).resolved
    twice = Seeds.of([matches, matches], resamples=FEW)
    assert difference(twice, twice) == Difference("ap", 0, 0, 0, 0, 0, 0)
    assert not difference(twice, twice).resolved


def test_two_sources_are_not_confused():
    from scipy.stats import ttest_ind

    a, b = three(1, 0.6), [*three(2, 0.5), *three(3, 0.5)[:1]]
    found = difference(Seeds.of(a, resamples=FEW), Seeds.of(b, resamples=FEW), "ar50")
    ours, theirs = ([run.metrics()["ar50"] for run in runs] for runs in (a, b))
    welch = ttest_ind(ours, theirs, equal_var=False)
    assert found.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert found.seed_error == pytest.approx(found.value / welch.statistic)
    assert (found.seed_low, found.seed_high) == pytest.approx(tuple(welch.confidence_interval(0.95)))
    samples = [np.mean([bootstrap(m, resamples=FEW)[:, METRICS.index("ar50")] for m in runs], 0) for runs in (a, b)]
    assert (found.low, found.high) == pytest.approx(interval(samples[0] - samples[1]))
    # trainings that differ less than chance would have it leave the interval over images as it is
    alike = difference(Seeds.of(a[:1] * 2, resamples=FEW), Seeds.of(b[:1] * 2, resamples=FEW), "ar50")
    alone = difference(Seeds.of(a[:1], resamples=FEW), Seeds.of(b[:1], resamples=FEW), "ar50")
    assert alike.seed_error == 0 and (alike.low, alike.high) == pytest.approx((alone.low, alone.high))
    one_sided = difference(Seeds.of(a, resamples=FEW), Seeds.of(b[:1], resamples=FEW), "ar50")
    assert one_sided.seed_error is None


@pytest.mark.parametrize(
    ("ends", "over_seeds", "resolved"),
    [
        ((0.01, 0.03), (None, None), True),
        ((-0.03, -0.01), (None, None), True),
        ((-0.01, 0.03), (None, None), False),
        ((0.0, 0.03), (None, None), False),
        ((0.01, 0.03), (0.005, 0.04), True),
        ((0.01, 0.03), (-0.01, 0.05), False),
        ((-0.01, 0.05), (0.01, 0.03), False),
        ((-0.03, -0.01), (-0.04, -0.005), True),
    ],
)
def test_resolved_by_both(ends, over_seeds, resolved: bool):
    error = None if over_seeds[0] is None else 0.01
    assert Difference("ap", sum(ends) / 2, *ends, error, *over_seeds).resolved == resolved


def test_difference_that_does_not_exist():
    truth, results = random_set(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] < 96**2]
    runs = Seeds.of([scored(truth, results)[0]], resamples=FEW)
    assert difference(runs, runs, "ap_l") is None
    with pytest.raises(ValueError, match=r"unknown metric 'ap60'; did you mean"):
        difference(runs, runs, "ap60")
    other = Seeds.of([scored(*random_set(0))[0]], resamples=FEW)
    with pytest.raises(ValueError, match="different persons"):
        difference(runs, other)
    with pytest.raises(ValueError, match=r"different images \(12 and 13\)"):
        difference(runs, Seeds.of([scored(*random_set(0, pictures=13))[0]], resamples=FEW))
    for options in ({"resamples": FEW + 1}, {"resamples": FEW, "seed": 1}):
        with pytest.raises(ValueError, match="paired difference needs the same"):
            difference(runs, Seeds.of(runs.runs, **options))
    with pytest.raises(ValueError, match="different persons"):
        Seeds.of([*runs.runs, *other.runs])
    with pytest.raises(ValueError, match="no runs given"):
        Seeds.of([])


def test_a_single_image_has_no_interval():
    truth, results = random_set(3)
    one = truth["images"][-1]["id"]
    alone = {
        **truth,
        "images": truth["images"][-1:],
        "annotations": [a for a in truth["annotations"] if a["image_id"] == one],
    }
    found = Matches.of(accumulated(alone, [r for r in results if r["image_id"] == one]))
    assert found.metrics()["ap"] is not None
    assert intervals(bootstrap(found, resamples=20)) == {}
    seeds = Seeds.of([found], resamples=20)
    assert seeds.summary() == {}
    assert difference(seeds, seeds) is None
