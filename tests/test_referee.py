"""Who computes COCO's numbers: the self-test meets everything, and refuses whoever differs."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

import lrbench.referee
from lrbench.evaluation import score
from lrbench.referee import VARIABLE, Referee, chosen, disagreement, examination, referee
from lrbench.structures import COCO, CROWDPOSE

HAS_FASTER = importlib.util.find_spec("faster_coco_eval") is not None


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Neither the user's choice nor a referee that another test has seen."""
    monkeypatch.delenv(VARIABLE, raising=False)
    referee.cache_clear()
    yield
    referee.cache_clear()


def imposter(monkeypatch: pytest.MonkeyPatch, evaluator: Any) -> None:
    """Install a package faster-coco-eval with another evaluator."""
    module = ModuleType("faster_coco_eval")
    module.COCO, module.COCOeval_faster = referee("pycocotools").annotations, evaluator  # type: ignore[attr-defined]
    real = lrbench.referee.version
    monkeypatch.setitem(sys.modules, "faster_coco_eval", module)
    monkeypatch.setattr(lrbench.referee, "version", lambda name: "9.9" if name.startswith("faster") else real(name))


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE], ids=lambda s: s.name)
def test_everything_occurs_in_the_examination(skeleton: Any):
    truth, results = examination(skeleton)
    per_image = Counter(r["image_id"] for r in results)
    people = Counter(a["image_id"] for a in truth["annotations"])
    assert per_image[1] == people[1] == people[2] == 0
    assert per_image[2] == 1
    assert per_image[3] > 20
    assert any(people[i["id"]] and not per_image[i["id"]] for i in truth["images"])
    persons = [a for a in truth["annotations"] if a["num_keypoints"]]
    assert {bool(a["area"] < 32**2) + 2 * bool(a["area"] > 96**2) for a in persons} == {0, 1, 2}
    assert any(a["iscrowd"] for a in truth["annotations"])
    assert any(not a["iscrowd"] and not a["num_keypoints"] for a in truth["annotations"])
    assert all(not a["num_keypoints"] for a in truth["annotations"] if a["iscrowd"])
    assert max(Counter((r["image_id"], r["score"]) for r in results).values()) > 1  # ties within an image
    order = [r["image_id"] for r in results]
    assert order != sorted(order)
    evaluator = referee("pycocotools").accumulated(truth, results, skeleton)
    evaluator.summarize()
    assert all(0.05 < value < 0.95 for value in evaluator.stats)  # no number is out of reach of a fault
    assert examination(skeleton) == (truth, results)


def test_pycocotools_is_the_usual_one(monkeypatch: pytest.MonkeyPatch):
    assert chosen() is referee("pycocotools")
    assert chosen().per_image
    assert str(chosen()).split()[0] == "pycocotools"
    monkeypatch.setenv(VARIABLE, "pycocotool")
    with pytest.raises(ValueError, match="LRBENCH_REFEREE: unknown referee 'pycocotool'; did you mean pycocotools"):
        chosen()


def test_it_scores_as_evaluation_does():
    truth, results = examination(COCO)
    evaluator = referee("pycocotools").accumulated(truth, results)
    evaluator.summarize()
    assert list(score(truth, results).model_dump().values()) == evaluator.stats.tolist()
    assert evaluator.evalImgs
    one = referee("pycocotools").accumulated(truth, results, areas=("medium",))
    np.testing.assert_array_equal(one.eval["precision"][..., 0, 0], evaluator.eval["precision"][..., 1, 0])
    assert one.eval["precision"].shape[3] == 1


def test_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    monkeypatch.setenv(VARIABLE, "faster-coco-eval")
    with pytest.raises(ValueError, match=r"pip install 'lrbench\[fast\]', or unset LRBENCH_REFEREE"):
        chosen()


class Off(COCOeval):
    """Differs in one number of one range of area, by very little."""

    def accumulate(self) -> None:
        super().accumulate()
        self.eval["recall"][3, 0, -1, 0] += 1e-11


class WithoutTies(COCOeval):
    """Takes equal scores in another order."""

    def computeOks(self, image: int, category: int) -> Any:
        self._dts[image, category].reverse()
        return super().computeOks(image, category)


class Never(COCOeval):
    """Has no number."""

    def summarize(self) -> None:
        self.stats = np.full(10, np.nan)


class Short(COCOeval):
    """Has a number less."""

    def summarize(self) -> None:
        super().summarize()
        self.stats = self.stats[:9]


class Renamed(COCOeval):
    """Keeps its precision elsewhere."""

    def accumulate(self) -> None:
        super().accumulate()
        self.eval["precisions"] = self.eval.pop("precision")


@pytest.mark.parametrize(
    ("evaluator", "fault"),
    [
        (Off, r"its recall differs from that of pycocotools .* by 1\.0e-11"),
        (WithoutTies, "its precision differs"),
        (Never, "its summary differs"),
        (Short, r"its summary has shape \(9,\), that of pycocotools .* \(10,\)"),
        (Renamed, "it fails on the self-test .KeyError: 'precision'."),
    ],
)
@pytest.mark.filterwarnings("error")
def test_whoever_differs_is_refused(monkeypatch: pytest.MonkeyPatch, evaluator: Any, fault: str):
    imposter(monkeypatch, evaluator)
    with pytest.raises(ValueError, match=f"^referee faster-coco-eval 9.9 is refused: {fault}") as caught:
        referee("faster-coco-eval")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("unset LRBENCH_REFEREE to score with pycocotools")


def test_an_equal_one_is_examined_once(monkeypatch: pytest.MonkeyPatch):
    calls = []

    class Counted(COCOeval):
        def evaluate(self) -> None:
            calls.append(1)
            super().evaluate()

    imposter(monkeypatch, Counted)
    monkeypatch.setenv(VARIABLE, "faster-coco-eval")
    found = chosen()
    assert calls
    before = len(calls)
    assert chosen() is found
    assert len(calls) == before
    assert str(found) == "faster-coco-eval 9.9"
    assert not found.per_image


def test_rounding_is_no_difference():
    class Rounded(COCOeval):
        def accumulate(self) -> None:
            super().accumulate()
            self.eval["precision"] *= 1 + 2**-52

    trusted = referee("pycocotools")
    assert disagreement(replace(trusted, evaluator=Rounded), trusted) == ""


@pytest.mark.skipif(not HAS_FASTER, reason="faster-coco-eval is not installed; pip install 'lrbench[fast]'")
def test_faster_coco_eval_passes():
    found: Referee = referee("faster-coco-eval")
    truth, results = examination(COCO)
    evaluator = found.accumulated(truth, results)
    assert not evaluator.evalImgs  # what `per_image` says of it
    evaluator.summarize()
    ours = list(score(truth, results).model_dump().values())
    np.testing.assert_allclose(evaluator.stats, ours, rtol=0, atol=1e-12)
