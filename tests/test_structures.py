"""Keypoint conventions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.cocoeval import Params

from lrbench.structures import COCO, Paths, mirror_index


def test_mirroring_exchanges_left_and_right_by_name():
    order = COCO.mirror_order
    assert sorted(order) == list(range(17))
    for k, name in enumerate(COCO.keypoints):
        other = {"left": "right", "right": "left"}.get(name.split("_")[0])
        assert COCO.keypoints[order[k]] == (name if other is None else name.replace(name.split("_")[0], other, 1))
    assert (order[order] == np.arange(17)).all()
    assert {tuple(sorted(pair)) for pair in COCO.pairs} == {(int(k), int(order[k])) for k in range(17) if k < order[k]}


def test_index_is_the_order_as_a_tensor():
    assert mirror_index().tolist() == COCO.mirror_order.tolist()
    assert mirror_index("cpu").dtype == torch.int64


def test_sigmas_are_those_of_the_referee():
    np.testing.assert_allclose(COCO.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-15)


def test_skeleton_and_upper_body():
    assert {k for bone in COCO.bones for k in bone} == set(range(17))
    # mirrored, it is the same skeleton
    order = COCO.mirror_order
    bones = {frozenset(bone) for bone in COCO.bones}
    assert {frozenset(int(order[k]) for k in bone) for bone in COCO.bones} == bones
    assert all(not set(COCO.keypoints[k].split("_")) & {"hip", "knee", "ankle"} for k in COCO.upper_body)
    assert len(COCO.upper_body) == 11


def test_paths_are_made_when_they_are_asked_for():
    paths = Paths(Path("folder"), ("a.jpg", "part/b.jpg"))
    assert len(paths) == 2
    assert list(paths) == list(paths) == [Path("folder/a.jpg"), Path("folder/part/b.jpg")]
    assert paths[np.int64(1)] == paths[-1] == Path("folder") / "part" / "b.jpg"
    with pytest.raises(IndexError):
        paths[2]
