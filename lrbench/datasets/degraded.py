"""Low-resolution copies of COCO-layout folders. A copy is plain COCO again, so every tool can read it.

* level ``image``: every picture shrinks by one factor s to w' = max(1, round(w / s)) and h' likewise; the exact factors
  are then w' / w and h' / h. All annotations stay, crowds and unlabelled persons included.
* level ``crop``: every labelled person becomes a picture of its own, with the id of the annotation. Its region is that
  of the ``biased`` frame (clipped box, aspect of the crop, padding 1.25), whose scale is w / W for both axes: the law
  of resized pictures, (x + 0.5) s - 0.5, holds with an offset, and a network of any alignment may read the picture.
  Only the person itself is annotated, and its mapped box can be used as it is. A labelled keypoint outside the region
  keeps its flag and its true place, beyond the picture.
* level ``height``: as ``crop``, but the picture shows the person's surroundings (half of the box again on every side)
  at the scale at which the annotated box is so many px high, and has whatever size that gives. Persons who are not
  higher in the photograph are left out, and counted in the manifest.

How annotations move, and how to score in the original coordinates: `lrbench.datasets.mapping`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from lrbench.corruptions.corruption import seed_of
from lrbench.datasets import coco, layout_of, lspet
from lrbench.datasets.images import DataError, Pixels, read_image
from lrbench.datasets.manifest import (
    Manifest,
    begin,
    in_words,
    journal_line,
    journal_of,
    pixel_hash,
    read_manifests,
    sha256,
    versions,
    write_manifest,
)
from lrbench.datasets.mapping import (
    Json,
    copy_annotation,
    map_detections,
    original_annotations,
    original_results,
    scaling,
)
from lrbench.degradation import LEVELS, Level, Preset, crop, load_preset, shrink
from lrbench.geometry import Float, Frame, Size
from lrbench.records import write_atomic

__all__ = ["degrade", "map_detections", "original_annotations", "original_results", "verify"]

Progress = Callable[[int, int], None]
T = TypeVar("T")

_CHUNK = 8  # source pictures per task of a worker; small, because Ctrl-C waits for the running ones


@dataclass(frozen=True)
class _Output:
    """A picture to write: its name, its size, where it lies in the source (None: the whole picture), its seed."""

    name: str
    size: Size
    matrix: Float | None
    seed: int
    known: str | None  # pixel hash of an earlier run


@dataclass(frozen=True)
class _Job:
    """One source picture and all that is made from it."""

    path: Path
    size: tuple[int, int]  # height and width that the annotations promise
    outputs: tuple[_Output, ...]


def degrade(
    source: Path,
    out: Path,
    *,
    preset: str,
    split: str = "val",
    level: Level = "image",
    scale: float | None = None,
    size: Size | None = None,
    height: int | None = None,
    severity: int | None = None,
    seed: int = 0,
    boxes: Path | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Json:
    """Write a low-resolution copy of one split; goes on where an interrupted call with the same arguments stopped.

    The result depends neither on `workers` nor on interruptions. Each file appears whole or not at all; pictures that
    are there are kept if their pixels have the recorded hash and are written anew if not; the manifest comes last.

    Args:
        source: folder in COCO layout.
        out: new or empty folder, an interrupted or complete copy, or a copy of other splits made the same way.
        preset: name of the degradation, see `lrbench.degradation.presets`.
        split: for example ``val``.
        level: ``image``, ``crop`` or ``height``, see the module.
        scale: level ``image``: pictures get this many times smaller along each side.
        size: level ``crop``: of the crops.
        height: level ``height``: of the persons, px.
        severity: of presets that have severities, 1 to 5; None for the usual one.
        seed: recorded; decides the result of presets that draw.
        boxes: level ``image``: COCO bbox result file, mapped to ``annotations/detections_<split>.json``.
        workers: processes. Spawned ones, so a script that calls this needs the usual ``if __name__ == "__main__"``.
        progress: called with source pictures done and in all.

    Returns:
        The split's manifest as JSON; keys as in `lrbench.datasets.manifest.Manifest`.

    Raises:
        ValueError: contradictory arguments.
        DataError: source missing, damaged or itself a copy; `out` holds something else or cannot be written.
        RuntimeError: a worker process was killed.
    """
    chosen = load_preset(preset, severity)
    _check_arguments(chosen, level, scale, size, height, boxes, workers)
    _check_folders(source, out)
    dataset, data = _read_source(source, split)
    with _workers(workers, len(dataset.images.path)) as pool:
        wanted = Manifest(
            split=split,
            preset=chosen.plain,
            level=level,
            scale=None if scale is None else float(scale),
            size=None if size is None else str(size),
            height=height,
            seed=seed,
            source=dataset.annotation_file.name,
            source_sha256=sha256(dataset.annotation_file.read_bytes()),
            versions=versions(),
            images={},
            files={},
        )
        copied, jobs = _plan(dataset, data, wanted)
        documents = {f"annotations/person_keypoints_{split}.json": _to_bytes(copied)}
        if boxes is not None:
            scales = {int(i["id"]): tuple(i["lrbench_scale"]) for i in copied["images"]}
            documents[f"annotations/detections_{split}.json"] = _to_bytes(map_detections(_read_rows(boxes), scales))
        try:
            return dataclasses.asdict(_write(out, wanted, chosen, jobs, documents, pool, progress))
        except BrokenProcessPool:
            raise RuntimeError(
                f"a worker process that degrades {source} was killed, perhaps for lack of memory; "
                "run the same command with fewer workers, it goes on where it stopped"
            ) from None
        except OSError as error:
            raise DataError(
                f"out folder {out}: cannot be written ({error.strerror or error}); choose a folder you may write to, "
                "with enough space"
            ) from None


def verify(out: Path, source: Path, *, workers: int = 2, progress: Progress | None = None) -> list[str]:
    """Make every file of a copy again in memory and list the differences; an empty list is a faithful copy.

    Args:
        out: folder that `degrade` wrote.
        source: folder it was made from.
        workers: processes.
        progress: called with source pictures done and in all, split by split.

    Returns:
        One line per difference. Detections are only compared with their hash: the file they came from is not kept.

    Raises:
        DataError: no manifest, or the source is missing or damaged.
    """
    manifests = read_manifests(out)
    if not manifests:
        raise DataError(f"folder {out}: no manifest.json; expected a folder written by lrbench degrade")
    return [line for m in manifests.values() for line in _differences(out, source, m, workers, progress)]


def _read_source(source: Path, split: str) -> tuple[coco.Dataset, Json]:
    layout = layout_of(str(source))
    if layout not in (coco, lspet):
        raise DataError(
            f"source {source}: in the layout of {layout.RULES.skeleton.name}; copies are made of COCO "
            "layouts only, others are scored on small crops by --res and --lr-preset"
        )
    dataset = coco.read(source, split)
    if dataset.annotation_file.name.startswith(coco.UNLABELLED):
        raise DataError(f"{dataset.annotation_file}: lists pictures without annotations; copy a split that has some")
    data: Json = json.loads(dataset.annotation_file.read_bytes())
    if "lrbench" in data:
        raise DataError(f"{dataset.annotation_file}: is itself a low-resolution copy; degrade the original instead")
    return dataset, data


def _plan(dataset: coco.Dataset, data: Json, wanted: Manifest) -> tuple[Json, list[_Job]]:
    """The copy's annotation JSON, and the pictures to make for it."""
    if wanted.level == "image":
        images, annotations, extra, jobs = _plan_images(dataset, data, wanted)
        law = "boxes and polygons times lrbench_scale; keypoints (x + 0.5) s - 0.5, 0 being the first pixel's centre"
    else:
        images, annotations, extra, jobs = _plan_persons(dataset, data, wanted)
        law = (
            "one image per labelled person, image id = annotation id; keypoints = lrbench_matrix times source pixel "
            "index; boxes and polygons likewise, half a pixel apart; other people in a crop are not annotated"
        )
    note = {
        "preset": wanted.preset["name"],
        "numbers": wanted.preset,
        "level": wanted.level,
        "severity": wanted.preset.get("severity"),
        "seed": wanted.seed,
        "scale": wanted.scale,
        "size": wanted.size,
        "height": wanted.height,
        "left_out": len(dataset.persons) - len(images) if wanted.level == "height" else 0,
        "convention": law,
        "versions": wanted.versions,
        "source": wanted.source,
        "source_sha256": wanted.source_sha256,
    }
    return data | {"images": images, "annotations": annotations, "lrbench": note} | extra, jobs


def _seed_of(wanted: Manifest, image: int, person: int | None = None) -> int:
    """Of one picture's random numbers."""
    amount = Size.parse(wanted.size) if wanted.size else wanted.height or wanted.scale or 1.0
    name, severity = wanted.preset["name"], wanted.preset.get("severity", 0)
    return seed_of(name, wanted.level, severity, amount, wanted.seed, image, person)


def _plan_images(
    dataset: coco.Dataset, data: Json, wanted: Manifest
) -> tuple[list[Json], list[Json], Json, list[_Job]]:
    scale = wanted.scale
    assert scale is not None
    images, jobs, placed = [], [], {}
    for record, path in zip(data["images"], dataset.images.path, strict=True):
        number, height, width = int(record["id"]), int(record["height"]), int(record["width"])
        size = Size(max(1, round(height / scale)), max(1, round(width / scale)))
        factors = (size.width / width, size.height / height)
        name = f"{number:012d}.png"
        placed[number] = (scaling(factors), size)
        output = _Output(name, size, None, _seed_of(wanted, number), None)
        jobs.append(_Job(path, (height, width), (output,)))
        images.append(
            {
                **record,
                "file_name": name,
                "width": size.width,
                "height": size.height,
                "lrbench_scale": list(factors),
                "lrbench_source_size": [width, height],
                "lrbench_source_file": record["file_name"],
            }
        )
    annotations = [
        copy_annotation(a, *placed[int(a["image_id"])], where=f"{dataset.annotation_file}: annotation {a.get('id')}")
        for a in data["annotations"]
    ]
    return images, annotations, {}, jobs


def _plan_persons(
    dataset: coco.Dataset, data: Json, wanted: Manifest
) -> tuple[list[Json], list[Json], Json, list[_Job]]:
    persons = dataset.persons
    by_id = {int(a["id"]): a for a in data["annotations"]}
    outputs: dict[int, list[_Output]] = {}
    images, annotations = [], []
    for row, number in enumerate(int(i) for i in persons.id):
        annotation, source_row = by_id[number], int(persons.image[row])
        record = data["images"][source_row]
        where = f"{dataset.annotation_file}: annotation {number}"
        try:
            place = _place(persons.box[row], wanted)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        if place is None:
            continue
        matrix, size = place
        name = f"{number:012d}.png"
        seed = _seed_of(wanted, int(record["id"]), number)
        outputs.setdefault(source_row, []).append(_Output(name, size, matrix, seed, None))
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": size.width,
                "height": size.height,
                "lrbench_matrix": matrix.tolist(),
                "lrbench_scale": [float(matrix[0, 0]), float(matrix[1, 1])],
                "lrbench_source_image_id": record["id"],
                "lrbench_source_size": [int(record["width"]), int(record["height"])],
            }
        )
        copied = copy_annotation(annotation, matrix, size, where) | {"image_id": number}
        # mapped back, keypoints are the source's own numbers
        kept = {f"lrbench_source_{k}": annotation[k] for k in ("keypoints", "num_keypoints") if k in annotation}
        annotations.append(copied | kept)
    maskless = [{k: v for k, v in a.items() if k != "segmentation"} for a in data["annotations"]]
    # persons who are left out are no ground truth of the copy either
    labelled = set(persons.id.tolist())
    extra = {"lrbench_images": data["images"], "lrbench_others": [a for a in maskless if int(a["id"]) not in labelled]}
    jobs = []
    for source_row, made in sorted(outputs.items()):
        height, width = (int(v) for v in dataset.images.size[source_row])
        jobs.append(_Job(dataset.images.path[source_row], (height, width), tuple(made)))
    return images, annotations, extra, jobs


def _place(box: Float, wanted: Manifest) -> tuple[Float, Size] | None:
    """Map source px -> px of a person's picture, and the picture's size; None for persons who are left out.

    Raises:
        ValueError: the box has no extent.
    """
    if wanted.size is not None:
        frame = Frame(Size.parse(wanted.size), "biased")
        return frame.matrix(frame.region(box, annotated=True)), frame.size
    assert wanted.height is not None
    x, y, width, height = (float(v) for v in box)
    if height <= wanted.height:
        return None
    # the crop of any network, a quarter of the longer side around the box, lies within half of it
    margin = 0.5 * max(width, height)
    scale = wanted.height / height
    size = Size(*(max(1, round((side + 2 * margin) * scale)) for side in (height, width)))
    # pixel areas: the corner of the region, (x - margin) - 0.5 in pixel centres, is the corner of the picture
    corner = (x - margin, y - margin)
    return np.array([[scale, 0, (0.5 - corner[0]) * scale - 0.5], [0, scale, (0.5 - corner[1]) * scale - 0.5]]), size


def _check_arguments(
    preset: Preset,
    level: Level,
    scale: float | None,
    size: Size | None,
    height: int | None,
    boxes: Path | None,
    workers: int,
) -> None:
    if level not in LEVELS:
        raise ValueError(f"unknown level {level!r}; known: {', '.join(LEVELS)}")
    if workers < 1:
        raise ValueError(f"workers {workers}: expected at least 1")
    needs = {
        "image": ("a scale, for example 4 for a quarter of the width", scale),
        "crop": ("the size of the crops, for example 64x48", size),
        "height": ("the height of the persons in px, for example 48", height),
    }
    words, given = needs[level]
    if given is None or sum(v is not None for v in (scale, size, height)) > 1:
        raise ValueError(f"level {level} needs {words}, and no {_others(level)}")
    if boxes is not None and level != "image":
        raise ValueError(f"level {level} makes one image per labelled person and takes no boxes; use level image")
    if height is not None and height < 1:
        raise ValueError(f"height {height}: expected at least 1 px")
    if scale is None:
        return
    if not math.isfinite(scale) or scale < 1:
        raise ValueError(f"scale {scale:g}: expected at least 1; 4 makes images four times smaller along each side")
    if preset.name == "none" and scale != 1:
        raise ValueError(f"preset none leaves images as they are: scale {scale:g}; use scale 1, or preset antialias")


def _others(level: Level) -> str:
    words = {"image": "scale", "crop": "size", "height": "height"}
    return " or ".join(word for name, word in words.items() if name != level)


def _check_folders(source: Path, out: Path) -> None:
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise ValueError(f"out folder {out} and source {source} contain one another; choose a folder elsewhere")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out folder {out}: is a file; choose a folder")


def _write(
    out: Path,
    wanted: Manifest,
    preset: Preset,
    jobs: list[_Job],
    documents: Mapping[str, bytes],
    pool: ProcessPoolExecutor | None,
    progress: Progress | None,
) -> Manifest:
    found = begin(out, dataclasses.replace(wanted, files={name: sha256(data) for name, data in documents.items()}))
    jobs = _with_known(jobs, found)
    folder = out / "images" / wanted.split
    folder.mkdir(parents=True, exist_ok=True)
    (out / "annotations").mkdir(exist_ok=True)
    images: dict[str, str] = {}
    work = functools.partial(_make, folder, preset)
    with journal_of(out, wanted.split).open("ab") as log:
        for count, made in enumerate(_each(work, jobs, pool), 1):
            images.update(made)
            log.write(journal_line(made))
            log.flush()
            if progress is not None:
                progress(count, len(jobs))
    for name, content in documents.items():
        write_atomic(out / name, content)
    done = dataclasses.replace(found, images=dict(sorted(images.items())))
    write_manifest(out, done)
    return done


def _with_known(jobs: Sequence[_Job], found: Manifest) -> list[_Job]:
    """Jobs that know the pixel hashes of a manifest."""
    images = found.images
    return [
        dataclasses.replace(job, outputs=tuple(dataclasses.replace(o, known=images.get(o.name)) for o in job.outputs))
        for job in jobs
    ]


def _make(folder: Path, preset: Preset, job: _Job) -> dict[str, str]:
    """Write the pictures of one job that are not there yet; returns file name -> pixel hash of all of them."""
    made = {o.name: o.known for o in job.outputs if o.known and _stored_hash(folder / o.name) == o.known}
    todo = [o for o in job.outputs if o.name not in made]
    for output, pixels in zip(todo, _pixels(preset, job, todo), strict=True):
        fine, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not fine:
            raise DataError(f"image {job.path}: OpenCV cannot encode {output.name} ({output.size})")
        # no fsync, unlike records: a torn file fails its hash and is made again
        partial = folder / f".{output.name}.part"
        partial.write_bytes(data.tobytes())
        partial.replace(folder / output.name)
        made[output.name] = pixel_hash(pixels)
    return made


def _pixels(preset: Preset, job: _Job, outputs: Sequence[_Output]) -> Iterator[Pixels]:
    image = read_image(job.path, job.size) if outputs else None
    for output in outputs:
        assert image is not None
        rng = np.random.default_rng(output.seed) if preset.random else None
        if output.matrix is None:
            yield shrink(image, preset, output.size, rng)
        else:
            yield crop(image, output.matrix, output.size, preset, rng)


def _stored_hash(path: Path) -> str | None:
    """Pixel hash of a picture; None where there is no whole one."""
    try:
        return pixel_hash(read_image(path))
    except DataError:
        return None


def _compare(folder: Path, preset: Preset, job: _Job) -> list[str]:
    """Differences between the pictures of one job, their recorded hashes, and the same pictures made again."""
    lines = []
    for output, pixels in zip(job.outputs, _pixels(preset, job, job.outputs), strict=True):
        stored, again = _stored_hash(folder / output.name), pixel_hash(pixels)
        if output.known is None:
            lines.append(f"{output.name}: not in the manifest")
        elif stored is None:
            lines.append(f"{output.name}: missing or damaged")
        elif stored != output.known:
            lines.append(f"{output.name}: its pixels are not those of the manifest")
        elif again != output.known:
            lines.append(f"{output.name}: made again from the source, its pixels differ")
    return lines


def _differences(out: Path, source: Path, made: Manifest, workers: int, progress: Progress | None) -> list[str]:
    preset = load_preset(made.preset["name"], made.preset.get("severity"))
    dataset, data = _read_source(source, made.split)
    with _workers(workers, len(dataset.images.path)) as pool:
        lines = []
        if preset.plain != made.preset:
            lines.append(f"{made.split}: preset {in_words(made.preset)}; this version has {in_words(preset.plain)}")
        digest = sha256(dataset.annotation_file.read_bytes())
        if digest != made.source_sha256:
            lines.append(f"{made.split}: made from an annotation file with sha256 {made.source_sha256}, found {digest}")
        copied, jobs = _plan(dataset, data, made)
        for name, expected in made.files.items():
            path = out / name
            if not path.is_file():
                lines.append(f"{name}: missing")
            elif sha256(path.read_bytes()) != expected:
                lines.append(f"{name}: not the file of the manifest")
        name = f"annotations/person_keypoints_{made.split}.json"
        if made.files.get(name) != sha256(_to_bytes(copied)):
            lines.append(f"{name}: made again from the source, it differs")
        folder, expected_names = out / "images" / made.split, {o.name for job in jobs for o in job.outputs}
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        lines += [f"{name}: not part of the copy" for name in sorted(present - expected_names)]
        jobs = _with_known(jobs, made)
        pixels: list[str] = []
        for count, found in enumerate(_each(functools.partial(_compare, folder, preset), jobs, pool), 1):
            pixels += found
            if progress is not None:
                progress(count, len(jobs))
    if pixels and made.versions != versions():
        lines.append(f"{made.split}: made with {in_words(made.versions)}; this is {in_words(versions())}")
    return lines + sorted(pixels)


@contextlib.contextmanager
def _workers(most: int, pictures: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes for so many source pictures, or None where one is enough; none is left behind, whatever happens.

    They start at once: while they import, the caller plans.
    """
    count = min(most, math.ceil(pictures / _CHUNK))
    if count <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")  # forking a process with OpenCV's or torch's threads can hang
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        for _ in range(count):
            pool.submit(os.getpid)  # a pool has no processes before it has tasks
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _each(work: Callable[[_Job], T], jobs: Sequence[_Job], pool: ProcessPoolExecutor | None) -> Iterator[T]:
    """Results of all jobs in any order."""
    if pool is None:
        yield from map(work, jobs)
        return
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    for future in as_completed([pool.submit(_run_chunk, work, chunk) for chunk in chunks]):
        yield from future.result()


def _run_chunk(work: Callable[[_Job], T], jobs: Sequence[_Job]) -> list[T]:
    return [work(job) for job in jobs]


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us in order
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # the parent was killed: nobody else would end this process


def _read_rows(path: Path) -> list[Json]:
    try:
        rows = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"detection file {path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"detection file {path}: not valid JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"detection file {path}: expected a list of COCO bbox results")
    return rows


def _to_bytes(data: Any) -> bytes:
    return json.dumps(data).encode()
