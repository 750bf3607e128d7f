"""A tiny dataset in MPII's released layout: smooth noise with persons on it, splits train and valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tiny
from scipy.io import savemat

JOINTS = 16
PICTURES = {"train": 4, "valid": 3}
PERSONS = 2
"""Per picture; the last person of a split has no labelled joint."""


def write(root: Path) -> Path:
    """Write both splits; pixels are counted from 1, as MPII's are."""
    (root / "annot").mkdir(parents=True)
    (root / "images").mkdir()
    for number, (split, pictures) in enumerate(PICTURES.items()):
        rng = np.random.default_rng(number)
        rows = []
        for i in range(pictures):
            name = f"{100 * number + i:09d}.jpg"
            cv2.imwrite(str(root / "images" / name), tiny.picture(rng, 120 + 2 * i, 161 + 3 * i))
            rows += [person(rng, name, 40 + 60 * k) for k in range(PERSONS)]
        rows[-1] |= {"joints": [[-1.0, -1.0]] * JOINTS, "joints_vis": [0] * JOINTS}
        (root / "annot" / f"{split}.json").write_text(json.dumps(rows))
    write_scoring_file(root)
    return root


def person(rng: np.random.Generator, name: str, x: float) -> dict[str, Any]:
    """Somebody 60 to 90 px high, of whom joint 4 is not labelled."""
    scale = round(float(rng.uniform(0.3, 0.45)), 6)
    center = [round(float(x + rng.uniform(-4, 4))), round(float(50 + rng.uniform(-6, 6)))]
    joints = (np.array(center) + rng.uniform(-25, 25, (JOINTS, 2)) + [0, 15 * scale]).round(2)
    joints[4] = -1
    visible = [int(k != 4) for k in range(JOINTS)]
    return {"image": name, "center": center, "scale": scale, "joints": joints.tolist(), "joints_vis": visible}


def read(root: Path, split: str = "valid") -> list[dict[str, Any]]:
    """Rows of a split."""
    return json.loads((root / "annot" / f"{split}.json").read_text())


def rewrite(root: Path, rows: Any, split: str = "valid") -> None:
    """Replace the rows of a split; the scoring file stays."""
    (root / "annot" / f"{split}.json").write_text(json.dumps(rows))


def write_scoring_file(root: Path, **changes: Any) -> None:
    """``gt_valid.mat`` of the rows of split valid: heads 20 px wide and 15 px high about the joint head_top."""
    rows = read(root)
    joints = np.array([row["joints"] for row in rows])  # (N, 16, 2)
    missing = 1.0 - np.array([row["joints_vis"] for row in rows])
    corners = np.stack([joints[:, 9] - (10, 7.5), joints[:, 9] + (10, 7.5)])  # (corner, N, 2)
    arrays = {
        "jnt_missing": missing.T,
        "pos_gt_src": joints.transpose(1, 2, 0),
        "headboxes_src": corners.transpose(0, 2, 1),
    }
    savemat(root / "annot" / "gt_valid.mat", {k: v for k, v in (arrays | changes).items() if v is not None})
