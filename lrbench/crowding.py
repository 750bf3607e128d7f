"""AP of easy, medium and hard pictures, as CrowdPose tells them apart by how crowded they are.

The paper speaks of crowd indices from 0 to 0.1, to 0.8 and to 1; published numbers come from the official tool, which
splits at 0.2 and 0.8 and scores each set of pictures for itself: below 0.2, from 0.2 to below 0.8, and from 0.8 on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrbench.evaluation import accumulated
from lrbench.statistics import Matches
from lrbench.structures import CROWDPOSE

BOUNDS = {"ap_easy": (-math.inf, 0.2), "ap_medium": (0.2, 0.8), "ap_hard": (0.8, math.inf)}
"""Crowd indices of the pictures that a metric looks at; the first bound belongs to them, the second does not."""


def subsets(truth: Mapping[str, Any], images: NDArray[np.int64]) -> dict[str, NDArray[np.int32]]:
    """Which pictures count for which metric: weights (I,) of zeros and ones for `Matches.metrics`.

    Args:
        truth: CrowdPose annotations; a picture without ``crowdIndex`` belongs nowhere.
        images: (I,) ids.
    """
    crowded = {image["id"]: image.get("crowdIndex", math.nan) for image in truth["images"]}
    index = np.array([crowded[number] for number in images.tolist()])
    return {name: ((index >= low) & (index < high)).astype(np.int32) for name, (low, high) in BOUNDS.items()}


def easy_medium_hard(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """``ap_easy``, ``ap_medium`` and ``ap_hard`` as fractions; None where no such person is annotated.

    Args:
        truth: CrowdPose annotations with areas (`lrbench.datasets.crowdpose`).
        results: a COCO keypoint result.
    """
    matches = Matches.of(accumulated(truth, results, CROWDPOSE, areas=("all",)))
    return {name: matches.metrics(chosen)["ap"] for name, chosen in subsets(truth, matches.images).items()}
