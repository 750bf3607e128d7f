"""By hand: reading annotations as large as COCO train2017's: the first time, and from the cache.

``python tests/benchmarks/annotations_speed.py [--rounds 5] [--persons 150000] [--keep]``. A file like
person_keypoints_train2017.json is made: pictures with their addresses and dates, 1.75 annotations of persons for each
labelled one, with polygons (crowds with counts), the category last; and an empty file for every picture, so that the
check that pictures are there is part of what is measured.

Each round starts one fresh process per side, one after the other: `lrbench.datasets.open_dataset` with an empty cache,
the same with what that left there, and what others do, pycocotools' ``COCO(file)``, which is `json.load` and an index.
Imports are not timed. Memory is the most that the process ever held (VmHWM), imports and all; ``import_mb`` is what it
held before it read. The file lies in the system's page cache on all sides. ``hash_s`` is what `Dataset.hash` takes,
which asks for the length of every picture; commands that keep a record need it once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SPLIT = "train"
LABELLED = 150_000
PICTURES_PER_LABELLED = 118_287 / 150_000
PERSONS_PER_LABELLED = 262_465 / 150_000
CROWDS = 0.015
GROWTH = (1_000, 10_000, 50_000)
SIDES = ("first", "cached", "pycocotools")
SIZES = np.array([(480, 640), (640, 480), (427, 640), (640, 427)])


EXPECTED = {
    "first load": "30 s -> 7 s: two thirds of the time make Python numbers of polygons that no sample needs",
    "cached load": "30 s -> 0.6 s: a sha256 of the file, as much again for 56 MB of arrays and for names of pictures",
    "memory of the first load": "1580 MB -> 450 MB: the bytes of the file and the arrays, no object per number",
    "memory of the cached load": "1580 MB -> 170 MB: the arrays, and once more while they are read",
}
CAME = {
    "first load": "As expected. Since nothing but eight keys of an annotation is decoded, checking them in Python is "
    "two thirds of what is left; code before this change took 30 to 35 s on the same machine.",
    "cached load": "Better than expected: a processor with SHA instructions hashes 1.5 GB/s. That is half of it, the "
    "list of 118k files, to see that pictures are there, a quarter.",
    "memory of the first load": "45 MB more than expected, for tables of ids; half of it is the file.",
    "memory of the cached load": "As expected. Workers of the loader are threads and share it; `lrbench degrade` sends "
    "its processes eight pictures at a time, without annotations.",
}


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--side":
        print(json.dumps(measured(sys.argv[2], Path(sys.argv[3]))))
        return
    from measure import Line, keep, parser

    command = parser(__doc__, rounds=5)
    command.add_argument("--persons", type=int, default=LABELLED)
    options = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        growth = [grown(persons, Path(folder)) for persons in GROWTH]
        root = made(Path(folder) / "data", options.persons)
        megabytes = annotation_file(root).stat().st_size / 1e6
        seen: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for number in range(options.rounds + 1):
            for side in SIDES:
                facts = in_a_process(side, root, Path(folder) / f"cache{number}")
                if number:  # the first round brings files and libraries into memory
                    seen[side].append(facts)
    ours = seen["first"] + seen["cached"]
    assert len({facts["digest"] for facts in ours}) == 1, "what is cached is not what was read"
    assert not any(facts["torch"] for facts in ours), "reading annotations imports torch"
    growth.append(row(options.persons, megabytes, seen["first"], seen["cached"]))
    what = f"{options.persons // 1000}k labelled persons ({megabytes:.0f} MB)"
    lines = [
        Line(
            what=f"{name}, {what}",
            bar=bar,
            rounds=[facts[key] for facts in seen[side]],
            unit=unit,
            sides={f"{s}, {unit}": median(rows, key) for s, rows in seen.items()},
            expected=EXPECTED[name],
            came=CAME[name],
        )
        for name, side, key, bar, unit in (
            ("first load", "first", "seconds", "<= 12", "s"),
            ("cached load", "cached", "seconds", "<= 1", "s"),
            ("memory of the first load", "first", "peak_mb", "<= 600", "MB"),
            ("memory of the cached load", "cached", "peak_mb", "<= 600", "MB"),
        )
    ]
    keep("annotations", lines, write=options.keep, further={"import_mb": median(ours, "import_mb"), "growth": growth})
    for line in growth:
        print(line)


def median(rows: list[dict[str, Any]], key: str) -> float:
    return statistics.median([float(facts[key]) for facts in rows])


def in_a_process(side: str, root: Path, cache: Path) -> dict[str, Any]:
    """What `measured` says in a fresh process whose cache lies in a folder."""
    command = [sys.executable, __file__, "--side", side, str(root)]
    environment = {**os.environ, "LRBENCH_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def measured(side: str, root: Path) -> dict[str, Any]:
    """Seconds and memory of reading once."""
    if side == "pycocotools":
        from pycocotools.coco import COCO

        before, begin = peak_mb(), time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            COCO(annotation_file(root))
        return {"seconds": time.perf_counter() - begin, "peak_mb": peak_mb(), "import_mb": before}
    from lrbench.datasets import open_dataset

    before, begin = peak_mb(), time.perf_counter()
    dataset = open_dataset(str(root), SPLIT)
    facts = {"seconds": time.perf_counter() - begin, "peak_mb": peak_mb(), "import_mb": before}
    begin = time.perf_counter()
    digest = f"{dataset.hash} {dataset.persons.hash}"
    return {**facts, "hash_seconds": time.perf_counter() - begin, "digest": digest, "torch": "torch" in sys.modules}


def peak_mb() -> float:
    """The most that this process held; `resource.getrusage` would count the process that started it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("no VmHWM in /proc/self/status")


def grown(persons: int, folder: Path) -> dict[str, Any]:
    """`row` of one load of each kind of a smaller file."""
    root, cache = made(folder / f"data{persons}", persons), folder / f"small{persons}"
    first, cached = (in_a_process(side, root, cache) for side in ("first", "cached"))
    return row(persons, annotation_file(root).stat().st_size / 1e6, [first], [cached])


def row(persons: int, megabytes: float, first: list[dict[str, Any]], cached: list[dict[str, Any]]) -> dict[str, Any]:
    """How cost grows: medians. Files below `lrbench.datasets.cache.LEAST` are not kept, so both loads read them."""
    return {
        "persons": persons, "file_mb": round(megabytes, 1),
        "first_s": round(median(first, "seconds"), 3), "cached_s": round(median(cached, "seconds"), 3),
        "hash_s": round(median(first + cached, "hash_seconds"), 3),
        "first_mb": round(median(first, "peak_mb")), "cached_mb": round(median(cached, "peak_mb")),
    }  # fmt: skip


def annotation_file(root: Path) -> Path:
    """The file that is read."""
    return root / "annotations" / f"person_keypoints_{SPLIT}2017.json"


def made(root: Path, labelled: int) -> Path:
    """A folder like COCO's train2017 with so many labelled persons, and empty pictures."""
    generator = np.random.default_rng(labelled)
    pictures, persons = round(labelled * PICTURES_PER_LABELLED), round(labelled * PERSONS_PER_LABELLED)
    ids = np.sort(generator.choice(581_929, pictures, replace=False)) + 1
    sizes = SIZES[generator.integers(len(SIZES), size=pictures)]
    folder = root / f"{SPLIT}2017"
    folder.mkdir(parents=True)
    annotation_file(root).parent.mkdir()
    kinds = generator.permutation(np.arange(persons) < labelled)
    order = generator.permutation(persons)
    with annotation_file(root).open("w", encoding="ascii") as file:
        info = {"description": "made", "url": "http://x", "version": "1.0", "year": 2017, "contributor": "nobody"}
        licences = [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": n, "name": "x"} for n in range(1, 9)]
        file.write(f'{{"info": {packed(info)},"licenses": {packed(licences)},"images": [')
        for row, (number, (height, width)) in enumerate(zip(ids.tolist(), sizes.tolist(), strict=True)):
            (folder / f"{number:012d}.jpg").touch()
            file.write(f"{',' if row else ''}{packed(picture(number, height, width))}")
        file.write('],"annotations": [')
        for row in range(persons):
            place = int(generator.integers(pictures))
            made_person = person(generator, bool(kinds[row]), *sizes[place].tolist())
            made_person |= {"image_id": int(ids[place]), "category_id": 1, "id": 183_001 + int(order[row])}
            file.write(f"{',' if row else ''}{packed(made_person)}")
        file.write(f'],"categories": [{packed(category())}]}}')
    return root


def packed(value: Any) -> str:
    """As the released files are written."""
    return json.dumps(value, separators=(",", ": "))


def picture(number: int, height: int, width: int) -> dict[str, Any]:
    name = f"{number:012d}.jpg"
    return {
        "license": 3, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}",
        "height": height, "width": width, "date_captured": "2013-11-14 16:28:13",
        "flickr_url": f"http://farm5.staticflickr.com/4153/{number:010d}_d3c2b1a09f_z.jpg", "id": number,
    }  # fmt: skip


def person(generator: np.random.Generator, labelled: bool, height: int, width: int) -> dict[str, Any]:
    """A box in the picture, a polygon of 33 corners about it, and keypoints in it."""
    size = np.round(generator.uniform(0.05, 0.6, 2) * (width, height), 2)
    corner = np.round(generator.uniform(0, 1, 2) * ((width, height) - size - 1), 2)
    crowd = not labelled and generator.random() < CROWDS * PERSONS_PER_LABELLED / (PERSONS_PER_LABELLED - 1)
    keypoints = np.zeros((17, 3), np.int64)
    if labelled:
        flags = generator.choice(3, 17, p=(0.36, 0.1, 0.54))
        flags[generator.integers(17)] = 2
        keypoints[:, :2] = corner + generator.random((17, 2)) * size
        keypoints[:, 2] = flags
        keypoints[flags == 0] = 0
    if crowd:
        counts = generator.integers(1, 4000, 60).tolist()
        segmentation: Any = {"counts": counts, "size": [height, width]}
    else:
        angle = np.linspace(0, 2 * np.pi, 33, endpoint=False)
        radius = generator.uniform(0.25, 0.5, 33)
        polygon = corner + size / 2 + size * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        segmentation = [np.round(polygon, 2).ravel().tolist()]
    return {
        "segmentation": segmentation, "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "area": round(float(size.prod() * 0.53), 4), "iscrowd": int(crowd), "keypoints": keypoints.ravel().tolist(),
        "bbox": [*corner.tolist(), *size.tolist()],
    }  # fmt: skip


def category() -> dict[str, Any]:
    from lrbench.structures import COCO

    bones = [[a + 1, b + 1] for a, b in COCO.bones]
    return {
        "supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO.keypoints), "skeleton": bones,
    }  # fmt: skip


if __name__ == "__main__":
    main()
