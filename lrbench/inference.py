"""Forward, flip test, decode, map back: persons -> keypoints in image px."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from lrbench.geometry import apply
from lrbench.loading import Crops
from lrbench.method import Codec, Method
from lrbench.models.network import PoseNetwork
from lrbench.structures import COCO, Predictions, Skeleton, mirror_index
from lrbench.timing import NETWORK, WAITING, Stopwatch

P = TypeVar("P")

Progress = Callable[[str, int, int, str], None]
"""(what, done, total, note): called now and then by long work."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Report nothing."""


def flip_test(model: PoseNetwork[Any], codec: Codec[Any], pixels: torch.Tensor, skeleton: Skeleton = COCO) -> Any:
    """Mean of the prediction and of the mirrored-back prediction of the mirrored crops, from one batched pass.

    An upscaler in front runs once, and its picture is mirrored: it need not answer a mirrored crop with a mirror image.
    """
    return flip_test_of(model, codec, model.prepare(pixels), skeleton)


def flip_test_of(model: PoseNetwork[Any], codec: Codec[Any], seen: torch.Tensor, skeleton: Skeleton = COCO) -> Any:
    """The same of prepared pixels (`PoseNetwork.prepare`)."""
    plain, mirrored = both_passes(model, seen)
    return codec.average(plain, codec.unflip(mirrored, mirror_index(seen.device, skeleton)))


def both_passes(model: PoseNetwork[P], seen: torch.Tensor) -> tuple[P, P]:
    """Predictions of prepared pixels and of their mirror images, from one batched pass."""
    both: Any = model.read(torch.cat([seen, seen.flip(-1)]))
    n = len(seen)
    plain, mirrored = (type(both)(*(field[part] for field in both)) for part in (slice(n), slice(n, None)))
    return plain, mirrored


@torch.inference_mode()
def predict(
    method: Method[Any],
    model: PoseNetwork[Any],
    crops: Crops,
    *,
    flip: bool = True,
    batch: int = 128,
    workers: int = 2,
    device: torch.device | str = "cpu",
    enlarged: list[torch.Tensor] | None = None,
    progress: Progress = silent,
    times: Stopwatch | None = None,
) -> Predictions:
    """Estimate the keypoints of persons, in float32 whatever the training precision was.

    Args:
        method: whose codec reads the prediction.
        model: with weights.
        crops: of the persons.
        flip: average with the mirrored crop.
        batch: persons per forward pass.
        workers: threads that cut crops.
        device: where the model runs.
        enlarged: what the upscaler in front makes of each batch of these crops, uint8; an empty list is filled, a full
            one is used instead of the upscaler. None keeps nothing.
        progress: called per batch.
        times: told where the time goes.
    """
    times = times or Stopwatch()
    model = model.to(device).eval()
    persons, total, done, start = crops.persons, len(crops.persons), 0, time.perf_counter()
    keypoints = np.zeros((total, persons.keypoints.shape[1], 3))
    batches = crops.batches(batch, workers)
    for number in range(math.ceil(total / batch)):
        with times(WAITING):
            loaded = next(batches)
        with times(NETWORK):
            if enlarged is not None and number < len(enlarged):
                seen = enlarged[number].to(device).float().div_(255)
            else:
                seen = model.prepare(loaded.pixels.to(device).float().div_(255))
                if enlarged is not None:
                    enlarged.append((255 * seen).round().to(torch.uint8).cpu())
            prediction = flip_test_of(model, method.codec, seen, persons.skeleton) if flip else model.read(seen)
        with times("decoding"):
            decoded = method.codec.decode(prediction)
            rows = slice(done, done + len(seen))
            keypoints[rows, :, :2] = decoded.xy.cpu().numpy()
            keypoints[rows, :, 2] = decoded.score.cpu().numpy()
        done += len(seen)
        progress("predict", done, total, f"{done / (time.perf_counter() - start):.0f} images/s")
    return to_image(crops, keypoints)


def to_image(crops: Crops, keypoints: np.ndarray[Any, np.dtype[np.float64]]) -> Predictions:
    """Keypoints (N, K, 3) in crop px -> predictions in image px; nothing is clipped to the picture."""
    persons, frame = crops.persons, crops.frame
    region = frame.region(persons.box, annotated=persons.annotated)
    mapped = keypoints.copy()
    mapped[..., :2] = apply(frame.to_image(region)[:, None], keypoints[..., :2])
    return Predictions(crops.store.images.id[persons.image], mapped, region.area, persons.score, persons.skeleton)
