"""Diagnosis of poses, one number at a time, from COCO dicts: slow and obvious."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from reference.scoring import SIGMAS

Person = Mapping[str, Any]
OTHER_SIDE = {k: k + 1 if k % 2 else k - 1 for k in range(1, 17)}
"""COCO's order: the left one of a pair has the odd number."""

KINDS = ("good", "jitter", "inversion", "swap", "miss")


def points(row: Person) -> list[tuple[float, float, float]]:
    flat = row["keypoints"]
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def counts(person: Person) -> bool:
    return not person["iscrowd"] and person["num_keypoints"] > 0


def similarity(x: float, y: float, area: float, sigma: float) -> float:
    return math.exp(-(x * x + y * y) / (2 * area * (2 * sigma) ** 2))


def oks(person: Person, prediction: Person) -> float:
    x, y, w, h = person["bbox"]
    terms = []
    for (px, py, _), (tx, ty, flag), sigma in zip(points(prediction), points(person), SIGMAS, strict=True):
        if flag:
            terms.append(similarity(px - tx, py - ty, person["area"], sigma))
        elif not any(f for *_, f in points(person)):  # from the box made three times as big
            dx = max(x - w - px, 0, px - x - 2 * w)
            dy = max(y - h - py, 0, py - y - 2 * h)
            terms.append(similarity(dx, dy, person["area"], sigma))
    return sum(terms) / len(terms)


def best_20(results: Sequence[Person], image: int) -> list[Person]:
    return sorted((r for r in results if r["image_id"] == image), key=lambda r: -r["score"])[:20]


def match(
    persons: Sequence[Person], predictions: Sequence[Person], threshold: float, inside: Sequence[bool]
) -> list[int | None]:
    """For each prediction of one image, best first: the index of its person.

    Each takes the most similar free person that counts, from the threshold on; if there is none, the most similar that
    does not count. Crowds are never used up. Of equal ones the last is taken.
    """
    free = [True] * len(persons)
    chosen: list[int | None] = []
    for prediction in predictions:
        similar = [oks(person, prediction) for person in persons]
        pick = None
        for wanted in (True, False):
            left = [i for i in range(len(persons)) if inside[i] is wanted and (free[i] or persons[i]["iscrowd"])]
            left = [i for i in left if similar[i] >= threshold]
            if left and pick is None:
                pick = max(left, key=lambda i: (similar[i], i))
        if pick is not None:
            free[pick] = False
        chosen.append(pick)
    return chosen


def matched(annotations: Mapping[str, Any], results: Sequence[Person]) -> list[tuple[Person, Person | None]]:
    """Every person that counts, and its prediction from OKS 0.1 on."""
    pairs = []
    for image in annotations["images"]:
        persons = [a for a in annotations["annotations"] if a["image_id"] == image["id"]]
        predictions = best_20(results, image["id"])
        chosen = match(persons, predictions, 0.1, [counts(p) for p in persons])
        for i, person in enumerate(persons):
            if counts(person):
                pairs.append((person, predictions[chosen.index(i)] if i in chosen else None))
    return pairs


def distances(annotations: Mapping[str, Any], results: Sequence[Person]) -> list[tuple[Person, float]]:
    """The person and the distance of every labelled keypoint of the persons that count; infinite if undetected."""
    found = []
    for person, prediction in matched(annotations, results):
        for i, (tx, ty, flag) in enumerate(points(person)):
            if flag:
                px, py, _ = points(prediction)[i] if prediction else (math.inf, math.inf, 0)
                found.append((person, math.hypot(px - tx, py - ty)))
    return found


def pck(annotations: Mapping[str, Any], results: Sequence[Person], alpha: float) -> float:
    return statistics.mean(d <= alpha * max(person["bbox"][2:]) for person, d in distances(annotations, results))


def pixel_error(annotations: Mapping[str, Any], results: Sequence[Person]) -> float:
    return statistics.median(d for _, d in distances(annotations, results) if d < math.inf)


def kind(annotations: Mapping[str, Any], person: Person, prediction: Person, k: int) -> str:
    px, py, _ = points(prediction)[k]
    inversion, swap, right = 0.0, 0.0, 0.0
    for other in annotations["annotations"]:
        if other["image_id"] != person["image_id"] or not counts(other):
            continue
        for j, (tx, ty, flag) in enumerate(points(other)):
            if not flag or j not in (k, OTHER_SIDE.get(k)):
                continue
            similar = similarity(px - tx, py - ty, other["area"], SIGMAS[j])
            if other is not person:
                swap = max(swap, similar)
            elif j != k:
                inversion = max(inversion, similar)
            else:
                right = similar
    if right >= 0.5:
        return "good" if right >= 0.85 else "jitter"
    if max(inversion, swap) < 0.5:
        return "miss"
    return "inversion" if inversion >= swap else "swap"


def errors(annotations: Mapping[str, Any], results: Sequence[Person]) -> dict[str, float]:
    found = [
        kind(annotations, person, prediction, k)
        for person, prediction in matched(annotations, results)
        if prediction
        for k, (_, _, flag) in enumerate(points(person))
        if flag
    ]
    return {name: found.count(name) / len(found) for name in KINDS}


def ap_of_heights(annotations: Mapping[str, Any], results: Sequence[Person], low: float, high: float) -> float | None:
    """AP of the persons whose box is at least `low` and less than `high` high."""
    values = [_ap(annotations, results, low, high, (50 + 5 * t) / 100) for t in range(10)]
    return None if None in values else statistics.mean(values)


def _ap(
    annotations: Mapping[str, Any], results: Sequence[Person], low: float, high: float, threshold: float
) -> float | None:
    right: list[tuple[float, bool]] = []
    total = 0
    for image in sorted(annotations["images"], key=lambda i: i["id"]):
        persons = [a for a in annotations["annotations"] if a["image_id"] == image["id"]]
        inside = [counts(p) and low <= p["bbox"][3] < high for p in persons]
        total += sum(inside)
        predictions = best_20(results, image["id"])
        for prediction, pick in zip(predictions, match(persons, predictions, threshold, inside), strict=True):
            ys = [y for _, y, _ in points(prediction)]
            if inside[pick] if pick is not None else low <= max(ys) - min(ys) < high:
                right.append((prediction["score"], pick is not None))
    if not total:
        return None
    right.sort(key=lambda pair: -pair[0])
    curve = []
    for n in range(1, len(right) + 1):
        found = sum(hit for _, hit in right[:n])
        curve.append((found / total, found / n))
    steps = [r / 100 for r in range(101)]
    return statistics.mean(max((p for r, p in curve if r >= step - 1e-12), default=0.0) for step in steps)
