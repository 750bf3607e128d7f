"""By hand: what `lrbench degrade` costs beside decoding, shrinking and encoding, its own work.

``python tests/benchmarks/degrade_speed.py [DATA] [--split val] [--rounds 5] [--out FILE]``. DATA is a folder in COCO
layout, `LRBENCH_COCO` by default, else synth. Levels image (scale 4) and crop (64x48). Every round measures, one after
the other:

* ``alone``: processor seconds of the work, in one process, by part;
* ``together``: the same work shared by one process per core; what it costs more is the machine's, not the program's;
* ``command``: wall and processor seconds of the whole command with one worker per core;
* ``few``: the command on its smallest input that starts all workers. What it costs beyond its own work is the fixed
  part of a run: interpreters, imports, the end of the workers.

Medians over the rounds count. ``total`` is wall times cores over the work alone, ``without_start`` the same without the
fixed part; the aim is 1.3 at most. ``busy`` is processor over wall time, at best the number of cores.

Nothing is deleted before the end: ext4 makes new files about ten times slower for a while after many were deleted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lrbench.datasets import coco, folder_of
from lrbench.datasets.images import read_image
from lrbench.degradation import crop, load_preset, shrink
from lrbench.geometry import Frame, Size

LEVELS = {"image": ["--scale", "4"], "crop": ["--res", "64x48"]}
SCALE, SIZE = 4, Size(64, 48)
PARTS = ("decode", "shrink", "encode")
FEW = 8  # pictures per worker: the smallest task that `lrbench degrade` hands out

Picture = tuple[Path, tuple[int, int], list[np.ndarray]]
"""File, height and width, boxes of its labelled persons."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="coco" if os.environ.get("LRBENCH_COCO") else "synth")
    parser.add_argument("--split", default="val")
    parser.add_argument("--preset", default="antialias", help="without random numbers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/degrade_speed.json"))
    options = parser.parse_args()
    name, root = folder_of(options.data)
    cores, pictures = os.cpu_count() or 1, read(root, options.split)
    rounds: dict[str, list[dict[str, Any]]] = {level: [] for level in LEVELS}
    with tempfile.TemporaryDirectory() as folder:
        few = part_of(root, options.split, FEW * cores, Path(folder) / "few")
        spread(cores, pictures, "image", options.preset)  # the pictures are in memory before anything counts
        for number in range(options.rounds):
            for level in LEVELS:
                seen = measure(cores, pictures, level, options, (root, few), Path(folder) / f"{level}{number}")
                rounds[level].append(seen)
                print(f"round {number + 1}: {level:5} work {seen['alone']['sum']:.2f} s, command {seen['command']}")
    rows = {level: summary(seen, cores) for level, seen in rounds.items()}
    facts = {
        "data": f"{name}/{options.split}", "pictures": len(pictures), "persons": sum(len(p[2]) for p in pictures),
        "preset": options.preset, "cores": cores, "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(), "opencv": cv2.__version__, "numpy": np.__version__,
        "load_average": [round(v, 2) for v in os.getloadavg()], "rounds": options.rounds, "levels": rows,
    }  # fmt: skip
    for level, row in rows.items():
        ratios = ", ".join(
            f"{k} {v['median']:.2f} ({v['min']:.2f} to {v['max']:.2f})" for k, v in row["ratios"].items()
        )
        print(f"{level:5} {facts['data']}, {len(pictures)} pictures, {cores} cores: {ratios}; fixed {row['fixed']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(facts, indent=1) + "\n")


def read(root: Path, split: str) -> list[Picture]:
    """Every picture of a split."""
    dataset = coco.read(root, split)
    boxes: list[list[np.ndarray]] = [[] for _ in dataset.images.path]
    for row, box in zip(dataset.persons.image, dataset.persons.box, strict=True):
        boxes[row].append(box)
    sizes = [(int(height), int(width)) for height, width in dataset.images.size]
    return list(zip(dataset.images.path, sizes, boxes, strict=True))


def part_of(root: Path, split: str, count: int, out: Path) -> Path:
    """A folder with links to the first pictures of a split that have labelled persons."""
    source, folder = coco.find_annotations(root, split), coco.find_images(root, split)
    data = json.loads(source.read_bytes())
    labelled = {a["image_id"] for a in data["annotations"] if a.get("num_keypoints") and not a.get("iscrowd")}
    data["images"] = [i for i in data["images"] if i["id"] in labelled][:count]
    kept = {i["id"] for i in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    (out / "annotations").mkdir(parents=True)
    (out / "images" / split).mkdir(parents=True)
    (out / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(data))
    for image in data["images"]:
        target = out / "images" / split / image["file_name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((folder / image["file_name"]).resolve())
    return out


def measure(
    cores: int,
    pictures: Sequence[Picture],
    level: str,
    options: argparse.Namespace,
    roots: tuple[Path, Path],
    out: Path,
) -> dict[str, Any]:
    """One round of one level: seconds of the work and of the commands on all and on a few pictures."""
    few = read(roots[1], options.split)
    alone = spread(1, pictures, level, options.preset)
    words = ["--split", options.split, "--level", level, "--preset", options.preset, *LEVELS[level], "-q"]
    return {
        "alone": {**alone, "sum": sum(alone.values())},
        "together": sum(spread(cores, pictures, level, options.preset).values()),
        "command": timed(["degrade", str(roots[0]), str(out), *words, "--workers", str(cores)]),
        "few": timed(["degrade", str(roots[1]), f"{out}-few", *words, "--workers", str(cores)]),
        "few_alone": sum(spread(1, few, level, options.preset).values()),
    }


def spread(processes: int, pictures: Sequence[Picture], level: str, preset: str) -> dict[str, float]:
    """Processor seconds by part, of all pictures shared by so many fresh processes at once."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(work, pictures[i::processes], level, preset) for i in range(processes)]
        spent = [share.result() for share in shares]
    return {part: sum(s[part] for s in spent) for part in PARTS}


def work(pictures: Sequence[Picture], level: str, preset_name: str) -> dict[str, float]:
    """Decode, shrink and encode as the command does, and nothing else; processor seconds by part."""
    cv2.setNumThreads(1)
    preset, frame, spent = load_preset(preset_name), Frame(SIZE, "biased"), dict.fromkeys(PARTS, 0.0)

    def clock(part: str, do: Callable[..., Any], *arguments: Any) -> Any:
        begin = time.process_time()
        result = do(*arguments)
        spent[part] += time.process_time() - begin
        return result

    for path, (height, width), boxes in pictures:
        if level == "crop" and not boxes:
            continue
        image = clock("decode", read_image, path, (height, width))
        if level == "image":
            size = Size(max(1, round(height / SCALE)), max(1, round(width / SCALE)))
            made = [clock("shrink", shrink, image, preset, size)]
        else:
            matrices = [frame.matrix(frame.region(box, annotated=True)) for box in boxes]
            made = [clock("shrink", crop, image, matrix, SIZE, preset) for matrix in matrices]
        for pixels in made:
            clock("encode", encoded, pixels)
    return spent


def encoded(pixels: np.ndarray) -> bytes:
    """PNG as the copies have it."""
    fine, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert fine
    return data.tobytes()


def timed(words: Sequence[str]) -> dict[str, float]:
    """Wall and processor seconds of an lrbench command and of all its processes."""
    command = [sys.executable, "-c", "from lrbench.cli import main; main()", *words]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"lrbench {' '.join(words)}: exit code {run.returncode}")
    return {"wall": round(time.perf_counter() - begin, 3), "processor": round(used.ru_utime + used.ru_stime, 3)}


def summary(rounds: Sequence[dict[str, Any]], cores: int) -> dict[str, Any]:
    """Medians of one level, and ratios by round with their median and spread."""

    def middle(of: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.median(map(of, rounds)), 3)

    def fixed(seen: dict[str, Any], kind: str) -> float:
        return float(seen["few"][kind] - seen["few_alone"] / (cores if kind == "wall" else 1))

    ratios = {
        "total": [r["command"]["wall"] * cores / r["alone"]["sum"] for r in rounds],
        "without_start": [(r["command"]["wall"] - fixed(r, "wall")) * cores / r["alone"]["sum"] for r in rounds],
        "processor": [r["command"]["processor"] / r["alone"]["sum"] for r in rounds],
        "processor_without_start": [
            (r["command"]["processor"] - fixed(r, "processor")) / r["alone"]["sum"] for r in rounds
        ],
        "together": [r["together"] / r["alone"]["sum"] for r in rounds],
        "busy": [r["command"]["processor"] / r["command"]["wall"] for r in rounds],
    }
    return {
        "work": {part: middle(lambda r, p=part: r["alone"][p]) for part in (*PARTS, "sum")},
        "command": {kind: middle(lambda r, k=kind: r["command"][k]) for kind in ("wall", "processor")},
        "fixed": {kind: middle(lambda r, k=kind: fixed(r, k)) for kind in ("wall", "processor")},
        "ratios": {
            name: {"median": round(statistics.median(v), 3), "min": round(min(v), 3), "max": round(max(v), 3)}
            for name, v in ratios.items()
        },
    }


if __name__ == "__main__":
    main()
