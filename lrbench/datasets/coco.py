"""COCO-layout folders: annotations and detections -> flat arrays.

Other layouts (`lrbench.datasets.mpii`, `lrbench.datasets.crowdpose`, `lrbench.datasets.lspet`) say how their files are
read as COCO annotations, and by which `Rules`; all that follows is here (`assemble`).

Of a file of COCO's own, nothing is decoded but what a sample is made of, one annotation at a time (`skim`), and what
came of a large one is kept in the user's cache folder (`lrbench.datasets.cache`), under a hash of its bytes and of the
code that read it.

Sources: cocodataset.org (format), and the published top-down loaders (HRNet, DARK, UDP) for what is a sample.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from lrbench import structures
from lrbench.datasets import cache
from lrbench.datasets.images import DataError
from lrbench.structures import COCO, Images, Paths, Persons, Skeleton

PERSON = 1
"""COCO's category id of persons."""

Json = dict[str, Any]

Metric = Literal["oks", "pckh", "pck"]
"""What predictions are scored by: AP over object keypoint similarity, PCKh (MPII), or PCK (LSP, which has no areas)."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """In what datasets differ once their files are read as COCO annotations.

    Attributes:
        skeleton: which keypoints are labelled.
        metric: what predictions are scored by.
        clipped: boxes are cut at the border of the picture, as the released COCO loaders do.
        inside: labelled keypoints lie in the picture; a file where one does not is of other pictures.
        counted: ``num_keypoints`` is 0 for persons without a labelled keypoint and for no others.
    """

    skeleton: Skeleton = COCO
    metric: Metric = "oks"
    clipped: bool = True
    inside: bool = True
    counted: bool = True


RULES = Rules()

UNLABELLED = "image_info_"
"""How COCO calls files that list pictures without annotations, test-dev's among them."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a dataset.

    Attributes:
        name: what tables call it: ``synth``, or the name of the folder.
        split: as asked for, for example ``val``.
        annotation_file: the file that was read.
        images: every picture of the split.
        persons: labelled persons, the samples of training and of scoring with annotated boxes.
        dropped: how many annotations the published sample rule leaves out, by reason.
        truth: reads what predictions are scored against: COCO annotations, with ``area`` of every person, and for PCKh
            ``head_box``; DataError where the files do not tell.
        rules: see `Rules`.
        source: the note `lrbench degrade` left in the file (preset, level, scale ...), or nothing.
        further_files: others that decide what `truth` gives.
        digest: sha256 of the annotation file, where reading it took it.
    """

    name: str
    split: str
    annotation_file: Path
    images: Images
    persons: Persons
    dropped: Mapping[str, int]
    truth: Callable[[], Json]
    rules: Rules = RULES
    source: Mapping[str, Any] = field(default_factory=dict)
    further_files: tuple[Path, ...] = ()
    digest: hashlib._Hash | None = None

    @property
    def metric(self) -> Metric:
        """What predictions are scored by."""
        return self.rules.metric

    @cached_property
    def hash(self) -> str:
        """sha256 over the files that were read and over the name and length of every picture."""
        digest = self.digest.copy() if self.digest is not None else _sha256(self.annotation_file)
        for path in self.further_files:
            digest.update(path.read_bytes())
        folder = self.images.path.folder
        for name in self.images.path.names:
            picture = os.path.join(folder, name)  # of a hundred thousand, `Path`s take longer than all the rest
            last = name if _PLAIN.fullmatch(name) else Path(picture).name
            try:
                size = str(os.stat(picture).st_size)
            except (OSError, ValueError):
                size = "-"
            digest.update(f"{last} {size}\n".encode())
        return digest.hexdigest()

    def row_of(self, person: int | None) -> int:
        """Row of a labelled person, for pictures of one.

        Args:
            person: annotation id; None for the largest one of those with most labelled keypoints.

        Raises:
            ValueError: no such person.
        """
        persons = self.persons
        if person is None:
            labelled = (persons.visible > 0).sum(1)
            if not len(persons):
                raise ValueError(f"{self.name}/{self.split} annotates nobody, so there is no person to choose")
            return int(np.lexsort((persons.box[:, 2] * persons.box[:, 3], labelled))[-1])
        found = np.flatnonzero(persons.id == person)
        if not len(found):
            raise ValueError(f"person {person}: no labelled person of this id in {self.name}/{self.split}")
        return int(found[0])


def found(root: Path) -> bool:
    """Whether a folder is in this layout."""
    return any(any(root.glob(f"annotations/{kind}*.json")) for kind in ("person_keypoints_", UNLABELLED))


def find_annotations(root: Path, split: str) -> Path:
    """Annotation file of a split: ``annotations/person_keypoints_<split>[2017].json``.

    Raises:
        DataError: no such file; the message lists the splits that exist.
    """
    if not root.is_dir():
        raise DataError(f"data folder {root}: not a folder; give --data synth, coco or a folder in COCO layout")
    for kind in ("person_keypoints_", UNLABELLED):
        for name in (split, f"{split}2017"):
            path = root / "annotations" / f"{kind}{name}.json"
            if path.is_file():
                return path
    splits = [p.stem.removeprefix("person_keypoints_") for p in root.glob("annotations/person_keypoints_*.json")]
    layouts = "annotations/person_keypoints_<split>.json, or annot/<split>.json (MPII), or json/crowdpose_<split>.json"
    raise no_annotations(root, split, splits, expected=layouts)


def no_annotations(root: Path, split: str, splits: Sequence[str], *, expected: str) -> DataError:
    """The error of a split that is not there: what is, or else where its annotations would lie."""
    hint = f"splits found: {', '.join(sorted(splits))}" if splits else f"expected {expected}"
    return DataError(f"data folder {root}: no annotations of split {split!r}; {hint}")


def find_images(root: Path, split: str) -> Path:
    """Folder with the pictures of a split, in any of the usual layouts.

    Raises:
        DataError: none of them exists.
    """
    # test-dev is half of the test pictures, and lies among them
    names = (split, f"{split}2017", *(("test", "test2017") if split.startswith("test-dev") else ()))
    candidates = [root / folder for name in names for folder in (f"images/{name}", f"{name}/images", name)] + [
        root / "images"
    ]
    for folder in candidates:
        if folder.is_dir():
            return folder
    tried = ", ".join(str(folder.relative_to(root)) for folder in candidates)
    raise DataError(f"data folder {root}: no pictures of split {split!r}; looked for {tried}")


def read(root: Path, split: str, *, name: str | None = None, need_images: bool = True) -> Dataset:
    """Read one split of a COCO-layout folder.

    Args:
        root: the folder, for example a COCO 2017 one with ``annotations`` and ``images/val2017`` or ``val2017``.
        split: ``train``, ``val``, ``val2017`` ...
        name: what tables call the dataset; the folder's name by default.
        need_images: refuse a dataset with missing pictures. Scoring a result file needs none.

    Raises:
        DataError: anything missing, unreadable or contradictory, with the id it concerns.
    """
    path = find_annotations(root, split)
    unlabelled = path.name.startswith(UNLABELLED)
    truth = partial(_no_truth, path) if unlabelled else None
    contents, annotations = _read_file(path, RULES), partial(load, path)
    return assemble(
        root, split, name, path, annotations, RULES, need_images=need_images, truth=truth, contents=contents
    )


def _no_truth(path: Path) -> Json:
    raise DataError(f"{path}: lists pictures without annotations, so nothing can be scored; use --export-testdev")


def assemble(
    root: Path,
    split: str,
    name: str | None,
    path: Path,
    annotations: Callable[[], Json],
    rules: Rules,
    *,
    need_images: bool,
    pictures: str | None = None,
    truth: Callable[[], Json] | None = None,
    further_files: tuple[Path, ...] = (),
    contents: Contents | None = None,
) -> Dataset:
    """Make a dataset of COCO annotations, whatever they were read from.

    Args:
        root, split, name, need_images: see `read`.
        path: the file they come from, for messages and the hash.
        annotations: reads them.
        rules: see `Rules`.
        pictures: split in whose folder they lie, where that is another one.
        truth: reads what is scored against, where that differs.
        further_files: see `Dataset`.
        contents: what the annotations say, where that is known.

    Raises:
        DataError: see `read`.
    """
    if contents is None:
        contents = contents_of(annotations(), path, rules)
    try:
        folder = find_images(root, pictures or split)
    except DataError:
        if need_images:
            raise
        folder = root
    if need_images:
        present = set(os.listdir(folder))
        absent = [folder / name for name in contents.names if name not in present]
        missing = [p.name for p in absent if p.parent == folder and p.name not in present]
        missing += [p.name for p in absent if p.parent != folder and not p.is_file()]
        if missing:
            raise DataError(
                f"data folder {root}: {len(missing)} of {len(contents.names)} pictures of split {split!r} are missing "
                f"from {folder}, the first is {missing[0]}"
            )
    return Dataset(
        name=name or root.resolve().name,
        split=split,
        annotation_file=path,
        images=Images(contents.id, contents.size, Paths(folder, contents.names)),
        persons=contents.persons,
        dropped=contents.dropped,
        truth=truth or partial(_scorable, annotations, path, rules.skeleton),
        rules=_rules_of(contents.source, rules),
        source=contents.source,
        further_files=further_files,
        digest=contents.digest,
    )


@dataclass(frozen=True, eq=False)
class Contents:
    """What annotations say, wherever their pictures lie.

    Attributes:
        id: of the pictures, see `Images`.
        size: see `Images`.
        names: of the pictures' files.
        persons: see `Dataset`.
        dropped: see `Dataset`.
        source: see `Dataset`.
        digest: see `Dataset`.
    """

    id: NDArray[np.int64]
    size: NDArray[np.int32]
    names: tuple[str, ...]
    persons: Persons
    dropped: Mapping[str, int]
    source: Mapping[str, Any]
    digest: hashlib._Hash | None = None

    def packed(self) -> tuple[cache.Arrays, Json]:
        """All but the digest as `lrbench.datasets.cache` keeps it; `unpacked` is the inverse."""
        persons = {name: getattr(self.persons, name) for name in _OF_PERSONS}
        about = {"names": self.names, "dropped": self.dropped, "source": self.source}
        return {"image_id": self.id, "image_size": self.size, **persons}, about

    @classmethod
    def unpacked(cls, arrays: cache.Arrays, about: Json, skeleton: Skeleton) -> Contents:
        """See `packed`."""
        persons = Persons(**{name: arrays[name] for name in _OF_PERSONS}, annotated=True, skeleton=skeleton)
        names, dropped, source = tuple(about["names"]), about["dropped"], about["source"]
        return cls(arrays["image_id"], arrays["image_size"], names, persons, dropped, source)


_OF_PERSONS = ("id", "image", "box", "score", "keypoints", "visible")


def contents_of(data: Json, path: Path, rules: Rules) -> Contents:
    """Check COCO annotations, and take what a sample is made of.

    Args:
        data: the annotations.
        path: of the file they come from.
        rules: see `Rules`.

    Raises:
        DataError: see `read`.
    """
    ids, sizes, names = _pictures(_records(data, "images", path), path)
    _check_category(listed(data, "categories", path), path, rules.skeleton)
    source = data.get("lrbench")
    source = source if isinstance(source, dict) else {}
    persons, dropped = _nobody(rules.skeleton), dict[str, int]()
    if not path.name.startswith(UNLABELLED):
        annotations = _records(data, "annotations", path)
        persons, dropped = _persons(annotations, ids, sizes, path, _rules_of(source, rules))
    return Contents(ids, sizes, names, persons, dropped, source)


def _rules_of(source: Mapping[str, Any], rules: Rules) -> Rules:
    # a copy of crops keeps keypoints that its crops cut off, at their true places
    return replace(rules, inside=False) if source.get("level") == "crop" else rules


def _read_file(path: Path, rules: Rules) -> Contents:
    """What a file says, by way of the cache if it is a large one."""
    try:
        large, digest = path.stat().st_size >= cache.LEAST, _sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    kept = cache.get(_key(path, digest, rules)) if large else None
    if kept is not None:
        return replace(Contents.unpacked(*kept, rules.skeleton), digest=digest)
    contents = _parsed(path, rules)
    if large and contents.digest is not None:
        cache.put(_key(path, contents.digest, rules), *contents.packed())
    return contents


def _parsed(path: Path, rules: Rules) -> Contents:
    content = _bytes(path)
    # once more: since it was looked for in the cache, the file may have become another
    return replace(contents_of(skim(content, path), path, rules), digest=hashlib.sha256(content))


def _sha256(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _key(path: Path, digest: hashlib._Hash, rules: Rules) -> str:
    """Of what a file with these bytes says by these rules."""
    parts = (_code(), digest.hexdigest(), str(rules), str(path.name.startswith(UNLABELLED)))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the code that decides what is read, so that no other version takes it."""
    files = (__file__, str(cache.__file__), str(structures.__file__))
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()


def read_detections(path: Path, images: Images, skeleton: Skeleton = COCO) -> Persons:
    """Read a COCO bbox result file as boxes to estimate poses in.

    Only persons count. No score threshold and no box suppression, as the published evaluations do;
    no clipping to the picture.

    Raises:
        DataError: not such a file, an unknown picture, or a box without extent.
    """
    rows = load(path, expected=list)
    index = {int(i): row for row, i in enumerate(images.id)}
    kept: list[tuple[int, int, list[float], float]] = []
    for number, row in enumerate(rows):
        where = f"detection file {path}, row {number}"
        try:
            category, image_id = _whole(row["category_id"]), _whole(row["image_id"])
            box, score = [float(v) for v in row["bbox"]], float(row["score"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected image_id, category_id, bbox [x, y, w, h] and score") from None
        if category != PERSON:
            continue
        if image_id not in index:
            raise DataError(f"{where}: image {image_id} is not in this split; give the boxes of this split")
        if len(box) != 4 or not np.isfinite([*box, score]).all() or min(box[2:]) <= 0:
            raise DataError(f"{where}: box {box} with score {score}; expected four finite numbers, sides above 0")
        kept.append((number, index[image_id], box, score))
    if not kept:
        raise DataError(f"detection file {path}: no box of category {PERSON} (person)")
    n = len(kept)
    return Persons(
        id=np.array([k[0] for k in kept], np.int64),
        image=np.array([k[1] for k in kept], np.int64),
        box=np.array([k[2] for k in kept], np.float64),
        score=np.array([k[3] for k in kept], np.float64),
        keypoints=np.zeros((n, len(skeleton), 2)),
        visible=np.zeros((n, len(skeleton)), np.int8),
        annotated=False,
        skeleton=skeleton,
    )


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Clip an annotated box to the picture as the published loaders do; None where nothing is left.

    They work with the last pixel inside, x2 = min(width - 1, x1 + max(0, w - 1)), and do not take away from the far
    side what they clip from the near one. The result is given back as x, y, width, height with w = x2 - x1 + 1.
    """
    x, y, w, h = box
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = min(width - 1.0, x1 + max(0.0, w - 1)), min(height - 1.0, y1 + max(0.0, h - 1))
    return (x1, y1, x2 - x1 + 1, y2 - y1 + 1) if x2 >= x1 and y2 >= y1 else None


def load(path: Path, expected: type = dict) -> Any:
    """Read a JSON file.

    Raises:
        DataError: unreadable, no JSON, or not of the expected type.
    """
    return _decoded(_bytes(path), path, expected)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror})")


def _decoded(content: bytes, path: Path, expected: type = dict) -> Any:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(data, expected):
        kind = "not COCO: expected an object with images and annotations" if expected is dict else "expected a list"
        raise DataError(f"{path}: {kind}, found {type(data).__name__}")
    return data


class _Image(TypedDict, total=False):
    """What `contents_of` looks at in a picture; `Any`, as it checks them."""

    id: Any
    file_name: Any
    height: Any
    width: Any


class _Annotation(TypedDict, total=False):
    """What `contents_of` looks at in an annotation; the polygons, most of a file, are not of it."""

    id: Any
    image_id: Any
    category_id: Any
    iscrowd: Any
    num_keypoints: Any
    keypoints: Any
    bbox: Any
    area: Any


class _File(TypedDict, total=False):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[dict[str, Any]]
    lrbench: Any


_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "images": msgspec.json.Decoder(_Image),
    "annotations": msgspec.json.Decoder(_Annotation),
}


@dataclass(frozen=True, eq=False)
class Records:
    """A list of `skim`: of each object what is looked at, decoded in passing."""

    raw: Sequence[msgspec.Raw]
    key: str
    path: Path

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Json]:
        decode = _DECODERS[self.key].decode
        for raw in self.raw:
            try:
                yield decode(raw)
            except msgspec.DecodeError:  # no object, or a number beyond floats, which the standard library calls inf
                yield from listed({self.key: [json.loads(bytes(raw))]}, self.key, self.path)


def skim(content: bytes, path: Path) -> Json:
    """COCO annotations as far as `contents_of` looks at them, with `Records` for lists.

    For COCO's train2017 that is a tenth of the time and a fifth of the memory of `load`, and gives the same values.

    Raises:
        DataError: see `load`.
    """
    if content.isascii():  # msgspec does not look whether text that it skips is UTF-8
        try:
            data: Json = {**msgspec.json.decode(content, type=_File)}
        except msgspec.DecodeError:  # told in full, or taken after all, by the standard library
            pass
        else:
            return data | {key: Records(data[key], key, path) for key in _DECODERS if key in data}
    whole: Json = _decoded(content, path)
    return whole


def _records(data: Mapping[str, Any], key: str, path: Path) -> Records | list[Json]:
    value = data.get(key)
    return value if isinstance(value, Records) else listed(data, key, path)


def listed(data: Mapping[str, Any], key: str, path: Path) -> list[Json]:
    """The list of objects under a key of COCO annotations.

    Raises:
        DataError: there is none.
    """
    value = data.get(key)
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise DataError(f"{path}: not COCO keypoints: expected a list of objects under {key!r}")
    return value


def is_finite(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a number that arithmetic can go on with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a whole number, however it is written."""
    return is_finite(value) and value == int(value)


def _whole(value: object) -> int:
    if not is_whole(value):
        raise ValueError(f"{value!r}: expected a whole number")
    return int(value)


def _check_category(categories: list[Json], path: Path, skeleton: Skeleton) -> None:
    """Refuse a file whose persons have other keypoints than COCO's, or the same in another order, and as many.

    Names of which COCO knows none tell nothing; nor do they in other layouts, whose files come with COCO's names.
    """
    persons = [category for category in categories if category.get("id") == PERSON]
    if not persons:
        raise DataError(f"{path}: 'categories' has no id {PERSON} (person), which pycocotools needs")
    names = persons[0].get("keypoints") or ()
    given = [str(name).strip().casefold().replace(" ", "_").replace("-", "_") for name in names]
    known = set(given) & set(COCO.keypoints)
    if skeleton == COCO and known and given != list(COCO.keypoints):
        raise DataError(
            f"{path}: category {PERSON} lists the keypoints {', '.join(map(str, names))}; expected those of COCO in "
            f"their order: {', '.join(COCO.keypoints)}"
        )


def _scorable(annotations: Callable[[], Json], path: Path, skeleton: Skeleton) -> Json:
    """Annotations of persons with all that pycocotools asks for, where reading does without.

    Raises:
        DataError: a crowd or an unlabelled person has no place, so what lies on it cannot be ignored.
    """
    data = annotations()
    categories = [category for category in data["categories"] if category["id"] == PERSON][:1]
    kept: dict[str, list[Json]] = {}
    for key in ("annotations", "lrbench_others"):  # a copy of persons has those of the source that have no picture
        kept[key] = []
        for annotation in data.get(key, ()):
            if annotation["category_id"] != PERSON:
                continue
            where = f"{path}: annotation {annotation['id']}"
            _box(annotation, where, labelled=False)
            keypoints = annotation.get("keypoints") or [0] * (3 * len(skeleton))
            usual = {"iscrowd": 0, "num_keypoints": sum(flag > 0 for flag in keypoints[2::3])}
            kept[key].append(usual | annotation | {"keypoints": keypoints})
    return data | {"categories": categories} | {key: rows for key, rows in kept.items() if key in data}


def picture_in(folder: Path, name: str, where: str) -> Path:
    """Path of a picture that an annotation file names.

    Raises:
        DataError: it is not below the folder.
    """
    _check_stays(name, where)
    return folder / name


_PLAIN = re.compile(r"[^/\\:]*[^/\\:.][^/\\:]*")
"""Names that are a file's own: without folders and drives, and more than dots."""


def _check_stays(name: str, where: str) -> None:
    if not _PLAIN.fullmatch(name) and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise DataError(f"{where}: file_name {name!r} leaves the data folder; refused")


def _pictures(
    records: Records | list[Json], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int32], tuple[str, ...]]:
    """Ids, sizes and file names, as in `Contents`."""
    ids, sizes, names = [], [], []
    for record in records:
        try:
            ids.append(_whole(record["id"]))
            sizes.append((_whole(record["height"]), _whole(record["width"])))
            name = str(record["file_name"])
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{path}: image {record.get('id')}: expected id, file_name, height and width") from None
        _check_stays(name, f"{path}: image {ids[-1]}")
        names.append(name)
    if not ids:
        raise DataError(f"{path}: lists no images")
    if len(set(ids)) != len(ids):
        twice = next(i for i, times in Counter(ids).items() if times > 1)
        raise DataError(f"{path}: image id {twice} stands twice")
    return np.array(ids, np.int64), np.array(sizes, np.int32), tuple(names)


def _persons(
    annotations: Records | list[Json],
    image_ids: NDArray[np.int64],
    image_sizes: NDArray[np.int32],
    path: Path,
    rules: Rules,
) -> tuple[Persons, dict[str, int]]:
    index = {i: row for row, i in enumerate(image_ids.tolist())}
    sizes = image_sizes.tolist()
    dropped = dict.fromkeys(("other category", "crowd", "no labelled keypoint", "area 0", "box outside the image"), 0)
    # numbers one after the other: as tuples and small arrays they would take three times the memory
    ids, images, boxes, points = array("q"), array("q"), array("d"), array("d")
    seen: set[int] = set()
    for annotation in annotations:
        where = f"{path}: annotation {annotation.get('id')}"
        try:
            number, image_id = _whole(annotation["id"]), _whole(annotation["image_id"])
            category, crowd = _whole(annotation["category_id"]), annotation.get("iscrowd", 0)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where}: expected integers id, image_id and category_id") from None
        if number < 1:
            raise DataError(f"{where}: pycocotools would count this person as missed; expected ids from 1")
        if crowd not in (0, 1):
            raise DataError(f"{where}: iscrowd {crowd!r}, expected 0 or 1")
        if number in seen:
            raise DataError(f"{where}: the id stands twice")
        seen.add(number)
        if image_id not in index:
            raise DataError(f"{where}: its image {image_id} is not in the file")
        reason, row = "", index[image_id]
        if category != PERSON:
            reason = "other category"
        elif crowd:
            reason = "crowd"
        else:
            keypoints = keypoints_of(annotation, where, rules.skeleton)
            height, width = sizes[row]
            labelled, told = np.count_nonzero(keypoints[:, 2]), annotation.get("num_keypoints", 0)
            if rules.counted and "num_keypoints" in annotation and (told == 0) != (labelled == 0):
                raise DataError(f"{where}: num_keypoints is {told!r}, but {labelled} keypoints are labelled")
            if not labelled:
                reason = "no labelled keypoint"
            else:
                box, area = _box(annotation, where)
                if rules.inside:
                    _check_inside(keypoints, width, height, where, rules.skeleton)
                kept = clip_box(box, width, height) if rules.clipped else (*box,)
                if area <= 0:
                    reason = "area 0"
                elif kept is None:
                    reason = "box outside the image"
                else:
                    ids.append(number)
                    images.append(row)
                    boxes.extend(kept)
                    points.frombytes(keypoints.tobytes())
        if reason:
            dropped[reason] += 1
    if not ids:
        raise DataError(
            f"{path}: no labelled person among {len(annotations)} annotations; nothing to train or score on"
        )
    keypoints = np.frombuffer(points).reshape(len(ids), -1, 3)
    visible = keypoints[:, :, 2].astype(np.int8)
    persons = Persons(
        id=np.array(ids, np.int64),
        image=np.array(images, np.int64),
        box=np.array(boxes, np.float64).reshape(-1, 4),
        score=np.ones(len(ids)),
        keypoints=np.where(visible[:, :, None] > 0, keypoints[:, :, :2], 0.0),
        visible=visible,
        annotated=True,
        skeleton=rules.skeleton,
    )
    return persons, {reason: count for reason, count in dropped.items() if count}


def _nobody(skeleton: Skeleton) -> Persons:
    k, none = len(skeleton), np.zeros(0, np.int64)
    xy, flags = np.zeros((0, k, 2)), np.zeros((0, k), np.int8)
    return Persons(none, none, np.zeros((0, 4)), np.zeros(0), xy, flags, annotated=True, skeleton=skeleton)


def keypoints_of(annotation: Mapping[str, Any], where: str, skeleton: Skeleton) -> NDArray[np.float64]:
    """Keypoints (K, 3) of an annotation: x, y, flag; zeros where it has none.

    Args:
        annotation: COCO's.
        where: how messages start.
        skeleton: of the keypoints.

    Raises:
        DataError: not such numbers.
    """
    value = annotation.get("keypoints", [0] * (3 * len(skeleton)))
    try:
        keypoints = np.asarray(value, np.float64).reshape(len(skeleton), 3)
    except (TypeError, ValueError):
        length = len(value) if isinstance(value, list) else type(value).__name__
        raise DataError(f"{where}: keypoints of length {length}, expected {3 * len(skeleton)} numbers") from None
    flags = keypoints[:, 2]
    # a set of Python's: comparisons of arrays cost more than all the rest of reading an annotation
    if not np.isfinite(keypoints).all() or not {0.0, 1.0, 2.0}.issuperset(flags.tolist()):
        raise DataError(f"{where}: keypoints must be finite, with visibility flags 0, 1 or 2")
    return keypoints


def _box(annotation: Mapping[str, Any], where: str, *, labelled: bool = True) -> tuple[list[float], float]:
    try:
        box, area = [float(v) for v in annotation["bbox"]], float(annotation["area"])
    except (KeyError, TypeError, ValueError):
        who = "a labelled person needs" if labelled else "scoring asks of crowds and unlabelled persons, too,"
        raise DataError(f"{where}: {who} bbox [x, y, w, h] and area") from None
    if labelled and (len(box) != 4 or not all(map(math.isfinite, (*box, area))) or min(box[2:]) <= 0):
        raise DataError(f"{where}: box {box} of a labelled person; expected four finite numbers, sides above 0")
    return box, area


def _check_inside(keypoints: NDArray[np.float64], width: int, height: int, where: str, skeleton: Skeleton) -> None:
    # one px of slack: a keypoint on pixel 0 lies at -0.375 in a copy that was shrunk four times
    x, y, labelled = keypoints[:, 0], keypoints[:, 1], keypoints[:, 2] > 0
    outside = labelled & ((x < -1) | (y < -1) | (x > width) | (y > height))
    if outside.any():
        k = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{where}: {skeleton.keypoints[k]} at ({x[k]:g}, {y[k]:g}) lies outside its {height}x{width} (height x "
            "width) image"
        )
