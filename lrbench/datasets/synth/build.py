"""Builds the data set on disk, atomically and independently of the number of workers."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np

from lrbench.datasets.synth.annotations import CATEGORY
from lrbench.datasets.synth.scene import render_scene

_CHUNK = 8  # images per task: long enough to hide the hand-over, short enough for a smooth progress bar
_SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class SynthSpec:
    """Every number that decides the pixels.

    Args:
        seed: any integer; another seed is another data set.
        train_images, val_images: how many images each split has.
        width, height: px of most images; a few are cropped or upright.
        jpeg_quality: 0 to 100.
        version: of the renderer; changes whenever the same seed gives other pixels.
    """

    seed: int = 0
    train_images: int = 2400
    val_images: int = 400
    width: int = 640
    height: int = 480
    jpeg_quality: int = 90
    version: int = 1

    @property
    def images(self) -> dict[str, int]:
        """Number of images of each split."""
        return {"train": self.train_images, "val": self.val_images}


def build(
    root: Path, spec: SynthSpec | None = None, *, workers: int = 2, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write images/{train,val}/<12-digit id>.jpg, annotations/person_keypoints_{train,val}.json and manifest.json.

    Everything is written next to `root` and renamed at the end, so `root` is complete whenever it exists.

    Args:
        root: folder to create; returned at once when it already holds this data set.
        spec: what to render; default ``SynthSpec()``.
        workers: processes; has no influence on the result.
        progress: called in this process with (images done, images in total).

    Returns:
        `root`.

    Raises:
        ValueError: `root` exists but holds something else, or a number in `spec` or `workers` makes no sense.
    """
    spec = spec or SynthSpec()
    _check(spec, workers)
    root = Path(root)
    if _complete(root, spec):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", suffix=".partial", dir=root.parent))
    try:
        draft.chmod(0o755)
        _write(draft, spec, workers, progress)
        try:
            draft.rename(root)
        except OSError:  # another process was faster; identical data, so its copy serves
            if not _complete(root, spec):
                raise
        _sync(root.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _check(spec: SynthSpec, workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected at least 1.")
    if min(spec.train_images, spec.val_images) < 0 or spec.train_images + spec.val_images == 0:
        raise ValueError(
            f"{spec.train_images} train and {spec.val_images} val images; give at least one image in total."
        )
    if min(spec.width, spec.height) < 160:
        raise ValueError(f"images of {spec.height}x{spec.width} px; scenes are laid out for at least 160 px a side.")
    if not 1 <= spec.jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality is {spec.jpeg_quality}, expected 1 to 100.")


def _complete(root: Path, spec: SynthSpec) -> bool:
    """Whether `root` holds the data set of `spec`; ValueError when it holds anything else."""
    if not root.exists():
        return False
    if root.is_dir() and not any(root.iterdir()):
        return False  # an empty folder may be replaced
    manifest = root / "manifest.json"
    advice = "delete that folder or choose another one."
    if not manifest.is_file():
        raise ValueError(f"{root} exists but has no manifest.json, so it is not a finished synth data set; {advice}")
    try:
        found = json.loads(manifest.read_text())
        same, digests = found["spec"] == asdict(spec), found["sha256"]
        damaged = [name for name, digest in digests.items() if _digest(root / name) != digest]
        files = found["images"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{manifest} cannot be read ({error}); {advice}") from error
    if not same:
        raise ValueError(f"{root} was made from {found['spec']}, expected {asdict(spec)}; {advice}")
    missing = [s for s in _SPLITS if _count(root / "images" / s) != files.get(s) or files.get(s) != spec.images[s]]
    if damaged or missing:
        raise ValueError(f"{root} was changed after it was made ({', '.join(damaged + missing)}); {advice}")
    return True


def _count(folder: Path) -> int:
    return sum(1 for entry in os.scandir(folder) if entry.name.endswith(".jpg")) if folder.is_dir() else -1


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def image_generator(spec: SynthSpec, split: str, index: int) -> np.random.Generator:
    """The generator of one image: a function of version, seed, split and index only."""
    key = hashlib.sha256(f"lrbench-synth/{spec.version}|{spec.seed}|{split}|{index}".encode()).digest()
    return np.random.default_rng(np.frombuffer(key, np.uint32))


def image_id(spec: SynthSpec, split: str, index: int) -> int:
    """COCO image id, unique over both splits, from 1."""
    return index + 1 + (spec.train_images if split == "val" else 0)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Consecutive images of one split."""

    spec: SynthSpec
    split: str
    start: int
    stop: int
    folder: str


def _tasks(spec: SynthSpec, draft: Path) -> Iterator[_Task]:
    for split in _SPLITS:
        for start in range(0, spec.images[split], _CHUNK):
            stop = min(start + _CHUNK, spec.images[split])
            yield _Task(spec=spec, split=split, start=start, stop=stop, folder=str(draft / "images" / split))


def _render(task: _Task) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Write the images of a task and return their image records and annotations (without annotation ids)."""
    cv2.setNumThreads(1)
    results = []
    for index in range(task.start, task.stop):
        spec = task.spec
        image, annotations = render_scene(image_generator(spec, task.split, index), spec.width, spec.height)
        number = image_id(spec, task.split, index)
        name = f"{number:012d}.jpg"
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality])[1]
        (Path(task.folder) / name).write_bytes(encoded.tobytes())
        record = {"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0], "license": 1}
        results.append((record, [{**annotation, "image_id": number} for annotation in annotations]))
    return results


def _start_worker() -> None:
    """Leave Ctrl-C to the parent (a worker that dies with a queue's lock in hand blocks it), and end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(tasks: list[_Task], workers: int, report: Callable[[int], None]) -> list[list[Any]]:
    """Results of all tasks in their order."""
    if workers == 1:
        threads = cv2.getNumThreads()
        try:
            return [_reported(_render(task), report) for task in tasks]
        finally:
            cv2.setNumThreads(threads)
    # spawn: the parent may hold threads or a CUDA context, which do not survive a fork
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    results: dict[int, list[Any]] = {}
    queue = iter(enumerate(tasks))
    pending: dict[Future[Any], int] = {}
    try:
        while True:
            # few tasks ahead, so that an interrupt has little left to wait for
            pending.update({pool.submit(_render, task): i for i, task in islice(queue, 2 * workers - len(pending))})
            if not pending:
                break
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                results[pending.pop(future)] = _reported(future.result(), report)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[i] for i in range(len(tasks))]


def _reported(result: list[Any], report: Callable[[int], None]) -> list[Any]:
    report(len(result))
    return result


def _write(draft: Path, spec: SynthSpec, workers: int, progress: Callable[[int, int], None] | None) -> None:
    for split in _SPLITS:
        (draft / "images" / split).mkdir(parents=True)
    (draft / "annotations").mkdir()
    total, done = sum(spec.images.values()), 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    tasks = list(_tasks(spec, draft))
    results = _run(tasks, min(workers, len(tasks)), report)
    digests = {}
    first_id = 1
    for split in _SPLITS:
        scenes = [scene for task, result in zip(tasks, results, strict=True) if task.split == split for scene in result]
        annotations = [annotation for _, own in scenes for annotation in own]
        numbered = [{"id": first_id + i, **annotation} for i, annotation in enumerate(annotations)]
        first_id += len(numbered)
        name = f"annotations/person_keypoints_{split}.json"
        _write_json(draft / name, _document(spec, split, [record for record, _ in scenes], numbered))
        digests[name] = _digest(draft / name)
    _write_json(draft / "manifest.json", {"spec": asdict(spec), "images": spec.images, "sha256": digests})
    _sync(draft)


def _document(spec: SynthSpec, split: str, images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    numbers = ", ".join(f"{name} {value}" for name, value in asdict(spec).items())
    return {
        "info": {
            "description": f"Synthetic images of people rendered by lrbench, not photographs; {split}; {numbers}.",
            "version": str(spec.version),
        },
        "licenses": [{"id": 1, "name": "Synthetic, no rights of third parties", "url": ""}],
        "categories": [CATEGORY],
        "images": images,
        "annotations": annotations,
    }


def _write_json(path: Path, document: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
