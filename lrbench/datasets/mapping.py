"""Annotations of low-resolution copies: into the copy, and back into the coordinates of its source.

Two conventions meet in COCO: boxes and polygons are continuous, with 0 at the outer edge of the first pixel, and are
multiplied by the scale; keypoints are pixel indices, with 0 at the centre of the first pixel, and move to
(x + 0.5) s - 0.5. Nothing is ever rounded.

AP_M and AP_L choose persons by area, and shrinking would move persons from one to the other. Scores on a copy are
therefore taken in the original coordinates: `original_annotations`, `original_results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from lrbench.datasets.images import DataError
from lrbench.geometry import Float, Size, apply, invert, rescale

Json = dict[str, Any]


def map_detections(rows: Sequence[Json], scales: Mapping[int, Sequence[float]]) -> list[Json]:
    """Move a COCO bbox result into a copy of level ``image``.

    Args:
        rows: image_id, category_id, bbox [x, y, w, h] and score each.
        scales: image id -> factors of x and y (``lrbench_scale``).

    Raises:
        DataError: a row without image or box, or of an unknown image.
    """
    mapped = []
    for number, row in enumerate(rows):
        try:
            image, box = int(row["image_id"]), [float(v) for v in row["bbox"]]
            x, y, w, h = box
        except (KeyError, TypeError, ValueError):
            raise DataError(f"detection {number}: expected image_id and bbox [x, y, w, h]") from None
        if image not in scales:
            raise DataError(f"detection {number}: image {image} is not in this split; give the boxes of this split")
        mapped.append({**row, "bbox": _map_box(scaling(scales[image]), [x, y, w, h])})
    return mapped


def original_annotations(data: Json) -> Json:
    """Annotations of a copy in the coordinates, and of the pictures, they were made from.

    Boxes, areas and, with one picture per person, keypoints are the source's own numbers; keypoints of level ``image``
    and polygons are mapped back, exact to rounding; masks (RLE) only nearly, for shrinking dropped pixels of
    them. With one picture per person, annotations without one (crowds, unlabelled) and pictures without a labelled
    person come back too, without their masks, so that scores equal those against the source file; at level ``height``
    the persons who were left out do not.

    Args:
        data: the JSON of any COCO keypoint file.

    Returns:
        A new JSON; `data` itself where it has no key ``lrbench``, i.e. is no copy.
    """
    if "lrbench" not in data:
        return data
    crops = data["lrbench"]["level"] != "image"
    images = {int(image["id"]): image for image in data["images"]}
    annotations = []
    for annotation in data["annotations"]:
        image = images[int(annotation["image_id"])]
        width, height = image["lrbench_source_size"]
        back = _map_annotation(annotation, invert(_matrix(image)), Size(height, width))
        for key in ("bbox", "area", "keypoints", "num_keypoints"):
            if (kept := f"lrbench_source_{key}") in annotation:
                back[key] = annotation[kept]
        if crops:
            back["image_id"] = image["lrbench_source_image_id"]
        annotations.append({k: v for k, v in back.items() if not k.startswith("lrbench_")})
    original = {k: v for k, v in data.items() if not k.startswith("lrbench")}
    if crops:
        return original | {"images": data["lrbench_images"], "annotations": annotations + data["lrbench_others"]}
    return original | {"images": [_source_image(image) for image in data["images"]], "annotations": annotations}


def original_results(results: Sequence[Json], data: Json) -> list[Json]:
    """COCO keypoint results predicted on a copy, in the coordinates and pictures of its source.

    Args:
        results: image_id, keypoints [x, y, score, ...] each; bbox and area are mapped where present.
        data: the copy's annotation JSON.

    Returns:
        A new list; the same rows where `data` has no key ``lrbench``, i.e. is no copy.

    Raises:
        DataError: a row of a picture that is not in the copy, or with malformed keypoints.
    """
    if "lrbench" not in data:
        return list(results)
    images = {int(image["id"]): image for image in data["images"]}
    mapped = []
    for number, row in enumerate(results):
        try:
            image = images[int(row["image_id"])]
            points = np.asarray(row["keypoints"], np.float64).reshape(-1, 3)
        except KeyError as error:
            raise DataError(f"result {number}: {error} is missing, or is an image the copy does not have") from None
        except (TypeError, ValueError):
            raise DataError(f"result {number}: keypoints must be a flat list of x, y, score") from None
        matrix = invert(_matrix(image))
        points[:, :2] = apply(matrix, points[:, :2])
        back = {
            **row,
            "image_id": image.get("lrbench_source_image_id", image["id"]),
            "keypoints": [float(v) for v in points.ravel()],
        }
        if "bbox" in row:
            back["bbox"] = _map_box(matrix, row["bbox"])
        if "area" in row:
            back["area"] = row["area"] * _area_factor(matrix)
        mapped.append(back)
    return mapped


def scaling(scale: Sequence[float]) -> Float:
    """Map source px -> copy px (2, 3) of a whole picture whose sides shrink by the factors of x and y."""
    factors = (float(scale[0]), float(scale[1]))
    return np.column_stack([np.diag(factors), rescale(np.zeros(2), factors)])


def _matrix(image: Json) -> Float:
    """Map source px -> copy px (2, 3) of an image record of a copy."""
    if "lrbench_matrix" in image:
        return np.asarray(image["lrbench_matrix"], np.float64)
    return scaling(image["lrbench_scale"])


def _area_factor(matrix: Float) -> float:
    return float(matrix[0, 0] * matrix[1, 1])


def _map_edges(matrix: Float, points: Any) -> Float:
    """Map continuous coordinates (N, 2), whose 0 is half a pixel before that of pixel indices."""
    return apply(matrix, np.asarray(points, np.float64).reshape(-1, 2) - 0.5) + 0.5


def _map_box(matrix: Float, box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    left, top = _map_edges(matrix, (x, y))[0]
    return [float(left), float(top), float(w * matrix[0, 0]), float(h * matrix[1, 1])]


def _map_keypoints(matrix: Float, keypoints: Sequence[float]) -> list[float]:
    points = np.asarray(keypoints, np.float64).reshape(-1, 3)
    moved = apply(matrix, points[:, :2]).tolist()
    mapped: list[float] = []
    for k, flag in enumerate(keypoints[2::3]):
        mapped += (*(moved[k] if flag else keypoints[3 * k : 3 * k + 2]), flag)
    return mapped


def _map_segmentation(matrix: Float, segmentation: Any, size: Size) -> Any:
    """Map polygons, or a mask by its nearest pixels; the result keeps the kind (polygons, counts, packed counts)."""
    if not isinstance(segmentation, dict):
        return [[float(v) for v in _map_edges(matrix, polygon).ravel()] for polygon in segmentation]
    packed = not isinstance(segmentation["counts"], list)
    height, width = segmentation["size"]
    mask = rle.decode(segmentation if packed else rle.frPyObjects(segmentation, height, width))
    back = invert(matrix)
    x = np.floor(back[0, 0] * np.arange(size.width) + back[0, 2] + 0.5).astype(np.int64)
    y = np.floor(back[1, 1] * np.arange(size.height) + back[1, 2] + 0.5).astype(np.int64)
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    small = mask[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)] * inside
    counts: list[int] | str = _run_lengths(small)
    if packed:
        counts = rle.encode(np.asfortranarray(small.astype(np.uint8)))["counts"].decode("ascii")
    return {"size": [size.height, size.width], "counts": counts}


def _run_lengths(mask: NDArray[Any]) -> list[int]:
    """COCO's uncompressed counts: lengths of runs of 0, 1, 0 ... down the columns."""
    flat = np.concatenate([[0], mask.ravel(order="F")])  # the 0 in front makes the first run one of zeros
    changes = np.flatnonzero(np.diff(flat))
    return [int(v) for v in np.diff(np.concatenate([[0], changes, [mask.size]]))]


def _map_annotation(annotation: Json, matrix: Float, size: Size) -> Json:
    """Move every coordinate that an annotation has into a picture of this size."""
    mapped = dict(annotation)
    if annotation.get("bbox") is not None:
        mapped["bbox"] = _map_box(matrix, annotation["bbox"])
    if annotation.get("area") is not None:
        mapped["area"] = annotation["area"] * _area_factor(matrix)
    if annotation.get("keypoints"):
        mapped["keypoints"] = _map_keypoints(matrix, annotation["keypoints"])
    if annotation.get("segmentation"):
        mapped["segmentation"] = _map_segmentation(matrix, annotation["segmentation"], size)
    return mapped


def copy_annotation(annotation: Json, matrix: Float, size: Size, where: str) -> Json:
    """An annotation as the copy has it: every coordinate mapped, the source's box and area beside the new ones.

    Args:
        annotation: of the source.
        matrix: (2, 3) source px -> copy px, without rotation.
        size: of the copy's picture.
        where: start of error messages.

    Raises:
        DataError: a coordinate that is not in COCO's form.
    """
    try:
        copied = _map_annotation(annotation, matrix, size)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: malformed bbox, area, keypoints or segmentation ({error})") from None
    return copied | {f"lrbench_source_{k}": annotation[k] for k in ("bbox", "area") if k in annotation}


def _source_image(image: Json) -> Json:
    width, height = image["lrbench_source_size"]
    kept = {k: v for k, v in image.items() if not k.startswith("lrbench_")}
    return kept | {"file_name": image["lrbench_source_file"], "width": width, "height": height}
