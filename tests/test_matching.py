"""Many questions matched at once: pycocotools, asked one at a time, says the same to the last digit."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from test_evaluation import NAMES, random_set, result

from lrbench.evaluation import accumulated, average_precision, one_by_one, score_keypoints
from lrbench.matching import Pairs, average_precisions
from lrbench.referee import examination, referee
from lrbench.statistics import Matches
from lrbench.structures import COCO, CROWDPOSE


def pairs_of(truth: dict, results: list[dict]) -> Pairs:
    return Pairs.of(accumulated(truth, results, areas=("all",)))


def judged(truth: dict, results: list[dict], pairs: Pairs, oks: np.ndarray, ignored: np.ndarray) -> Any:
    """pycocotools' evaluator with given OKS (N,) and persons ignored (P,)."""
    flags = dict(zip(pairs.person_id.tolist(), ignored.tolist(), strict=True))
    people = [{**a, "num_keypoints": int(not flags[a["id"]])} for a in truth["annotations"]]
    evaluator = accumulated({**truth, "annotations": people}, results, areas=("all",))
    sizes = list(zip(pairs.predictions.tolist(), pairs.persons.tolist(), strict=True))
    blocks = np.split(oks, np.cumsum([d * p for d, p in sizes])[:-1])
    images = zip(pairs.images.tolist(), sizes, blocks, strict=True)
    known = {image: block.reshape(size) if len(block) else [] for image, size, block in images}
    evaluator.computeOks = lambda image, category: known[image]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


@pytest.mark.parametrize("seed", range(4))
def test_lanes_are_matched_as_pycocotools_matches(seed: int):
    """OKS of few values, so that persons tie and meet thresholds exactly, and persons ignored at random."""
    truth, results = random_set(seed)
    pairs = pairs_of(truth, results)
    rng = np.random.default_rng(seed)
    oks = rng.integers(0, 21, (3, len(pairs.oks))) / 20
    ignored = pairs.crowd | (rng.random((3, len(pairs.person_id))) < np.array([[0], [0.3], [0.7]]))
    ours = pairs.matches(oks, ignored, np.tile(pairs.outside, (3, 1)), ("a", "b", "c"))
    found = average_precisions(ours)
    assert max(pairs.predictions) == 20 < len(results)
    for lane in range(3):
        evaluator = judged(truth, results, pairs, oks[lane], ignored[lane])
        theirs = Matches.of(evaluator)
        for what in ("matched", "ignored", "persons"):
            np.testing.assert_array_equal(getattr(ours, what)[lane], getattr(theirs, what)[0])
        for what in ("images", "image", "score", "thresholds"):
            np.testing.assert_array_equal(getattr(ours, what), getattr(theirs, what))
        assert found[lane] == average_precision(evaluator) > 0


@pytest.mark.parametrize("seed", range(3))
def test_similarities_are_those_of_pycocotools(seed: int):
    truth, results = random_set(seed)
    pairs = pairs_of(truth, results)
    assert pairs.similarity().tolist() == pairs.oks.tolist()
    assert ((pairs.oks > 0.1) & pairs.never[pairs.person]).any()  # near the box of somebody without keypoints
    some = np.arange(0, len(pairs.oks), 3)
    there = pairs.truth[pairs.person[some], :, :2]
    labelled = pairs.labelled[pairs.person[some]].any(1)
    assert (pairs.similarity(some, there)[labelled] == 1).all()


def same_either_way(truth: dict, results: list[dict], skeleton: Any = COCO) -> dict[str, float | None]:
    before = copy.deepcopy((truth, results))
    found = score_keypoints(truth, results, skeleton)
    assert found == one_by_one(truth, results, skeleton, referee("pycocotools"))
    assert list(found) == list(skeleton.keypoints)
    assert (truth, results) == before
    return found


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE], ids=lambda s: s.name)
def test_keypoints_at_once_are_keypoints_one_by_one(skeleton: Any):
    found = same_either_way(*examination(skeleton), skeleton)
    assert len(set(found.values())) > len(skeleton) / 2


@pytest.mark.parametrize("boxes", [(0, 0, 10, 10), (0, 0, 2e5, 2e5), (0, 0, -1, 10)])
def test_boxes_of_results_decide_what_is_outside(boxes: tuple[float, ...]):
    truth, results = random_set(1)
    first, *others = results
    assert same_either_way(truth, [{**first, "bbox": list(boxes)}, *[{**r, "bbox": list(boxes)} for r in others]])


def test_results_far_away_are_wrong_for_a_keypoint_and_ignored_for_all():
    """Their extent is beyond all areas, but one keypoint has none."""
    truth, results = random_set(1)
    far = np.linspace(0, 1e6, 34).reshape(17, 2)
    results = [*results, *(result(i, far, 1.0) for i in range(3, 12))]
    assert pairs_of(truth, results).outside.sum() == 9
    assert same_either_way(truth, results) != score_keypoints(truth, results[:-9])


def test_persons_numbered_0_and_persons_too_large_and_nobody():
    truth, results = random_set(2)
    people = [{**a, "id": i, "area": 1e11 if i % 5 == 1 else a["area"]} for i, a in enumerate(truth["annotations"])]
    assert same_either_way({**truth, "annotations": people}, results) != score_keypoints(truth, results)
    assert set(same_either_way({**truth, "annotations": []}, results).values()) == {None}
    assert set(same_either_way(truth, []).values()) == {0.0}
    one = {"images": [{"id": 1}], "annotations": [], "categories": NAMES}
    assert set(same_either_way(one, []).values()) == {None}


@pytest.mark.parametrize(("step", "what"), [("similarity", "OKS"), ("partners", "matches")])
def test_another_matching_is_refused(step: str, what: str, monkeypatch: pytest.MonkeyPatch):
    truth, results = random_set(0)
    right = getattr(Pairs, step)
    monkeypatch.setattr(Pairs, step, lambda self, *args: right(self, *args)[..., ::-1])
    with pytest.raises(RuntimeError, match=f"^{what} of pycocotools and ours differ; please report this"):
        score_keypoints(truth, results)


def test_another_referee_evaluates_every_keypoint(monkeypatch: pytest.MonkeyPatch):
    truth, results = random_set(0)
    expected, asked = score_keypoints(truth, results), []
    monkeypatch.setattr("lrbench.evaluation.chosen", lambda: "another")
    monkeypatch.setattr("lrbench.evaluation.accumulated", lambda *a, by, **o: asked.append(by) or accumulated(*a, **o))
    assert score_keypoints(truth, results) == expected
    assert asked == ["another"] * 17
