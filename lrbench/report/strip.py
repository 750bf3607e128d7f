"""Strip: one person as every row of a comparison sees it, from the photograph over few pixels to the keypoints."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from lrbench.bench import Bench, MissingWeights, Opened, sr_label
from lrbench.cells import Cell
from lrbench.datasets.coco import Dataset
from lrbench.datasets.images import Pixels
from lrbench.degradation import Preset, load_preset
from lrbench.evaluation import oks
from lrbench.geometry import Float, Frame, Size, apply, compose, enlargement
from lrbench.inference import predict
from lrbench.loading import Crops
from lrbench.method import Method
from lrbench.pairs import some
from lrbench.structures import Persons, Skeleton

COLUMNS = 6
"""Tiles side by side, at most."""

COLOURS = {1: "#56B4E9", -1: "#E69F00", 0: "#FFFFFF"}
"""Of the sides, 1 left and -1 right: sky blue and orange of Okabe and Ito's palette, and white between them."""

FAINT = 0.3
"""Opacity of keypoints whose score does not count for the score of their person."""


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of the strip.

    Attributes:
        title: above it.
        pixels: (h, w, 3) uint8.
        note: below it.
        keypoints: (K, 3) x and y, px of the picture, and opacity in [0, 1], 0 for those left out; None for none.
        interpolation: of the pixels on the figure.
    """

    title: str
    pixels: Pixels
    note: str
    keypoints: Float | None = None
    interpolation: str = "nearest"


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the comparison.

    Attributes:
        cell: what is measured.
        method: of the cell.
        crops: the person alone.
        opened: the cell with its weights; None where it is not trained.
    """

    cell: Cell
    method: Method[Any]
    crops: Crops
    opened: Opened | None


def strip(bench: Bench, cells: Sequence[Cell], out: Path, *, person: int | None = None) -> Path:
    """Draw the original, the low-resolution pixels, and what the pose network of every cell sees and says.

    The person's annotated box is cropped, whatever boxes the cells are scored with. Below each prediction stands its
    OKS with the annotation, as COCO counts it, where that is the measure of the data. A cell without weights has an
    empty tile that says so.

    Args:
        bench: opens data and weights.
        cells: of one comparison, so of one dataset and split.
        out: PNG file to write.
        person: annotation id; None for the largest one of those with most labelled keypoints.

    Returns:
        `out`.

    Raises:
        ValueError: no cells, or no such person.
        DataError: data or weights damaged or refused.
    """
    if not cells:
        raise ValueError("strip: no cells to draw; give rows that are measured here, not only reported ones")
    dataset = bench.dataset(cells[0].data, cells[0].split)
    one = some(dataset.persons, np.array([dataset.row_of(person)]))
    rows = _side_by_side([_open(bench, cell, one) for cell in cells])
    area = _area(dataset, int(one.id[0])) if dataset.metric == "oks" else None
    tiles = [_original(rows[0].crops, copy=bool(dataset.source)), *_inputs(rows)]
    tiles += [_seen(row, title, area) for row, title in zip(rows, _titles(rows), strict=True)]
    figure = _draw(tiles, dataset.persons.skeleton)
    who = f"{dataset.name}/{dataset.split}, person {int(one.id[0])}, annotated box {one.box[0, 3]:.0f} px high"
    figure.suptitle(f"{who}\none person: an illustration, no evidence of a difference", fontsize=9)
    legend = "blue: the person's left; orange: right; faint: score too low to count"
    figure.supxlabel(legend if area is None else f"{legend}; OKS with the annotation", fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150, format="png")
    return out


def _area(dataset: Dataset, person: int) -> float:
    """Of the annotated segment, px²; OKS is relative to it."""
    annotations = dataset.truth()["annotations"]
    return next(float(a["area"]) for a in annotations if int(a["id"]) == person)


def _open(bench: Bench, cell: Cell, one: Persons) -> Row:
    try:
        opened = bench.open(cell)
    except MissingWeights:
        opened = None
    method = cell.compose() if opened is None else opened.method
    crops = bench.crops(cell.data, cell.split, method, cell.preset(), one, cell.lr_seed)
    return Row(cell, method, crops, opened)


def _side_by_side(rows: list[Row]) -> list[Row]:
    """The same rows by preset, then by upscaler, both in the order in which they first come."""
    kinds = [(_words(row.crops.preset), sr_label(row.method)) for row in rows]
    presets, upscalers = (list(dict.fromkeys(names)) for names in zip(*kinds, strict=True))
    places = [(presets.index(preset), upscalers.index(upscaler)) for preset, upscaler in kinds]
    return [rows[i] for i in sorted(range(len(rows)), key=places.__getitem__)]


def _original(crops: Crops, *, copy: bool) -> Tile:
    """The region of the person, one px for each of the stored picture, with the annotated keypoints."""
    width, height = crops.frame.region(crops.persons.box[0], annotated=True).side
    frame = Frame(Size(max(1, round(height)), max(1, round(width))), "biased")
    native = dataclasses.replace(crops, frame=frame, preset=load_preset("none"))
    pixels, xy, labelled = native.sample(0, native.view(0))
    title = f"{'low-resolution copy' if copy else 'original'}\n{frame.size}"
    return Tile(title, pixels, "annotated keypoints", np.column_stack([xy, labelled]), "auto")


def _inputs(rows: Sequence[Row]) -> list[Tile]:
    """One tile per distinct low-resolution input, its pixels as they are."""
    distinct = {(_words(row.crops.preset), row.crops.frame, row.crops.seed): row.crops for row in rows}
    return [
        Tile(f"{preset}\n{frame.size}, {frame.align}", _pixels(crops), "input pixels")
        for (preset, frame, _), crops in distinct.items()
    ]


def _pixels(crops: Crops) -> Pixels:
    return crops.sample(0, crops.view(0))[0]


def _words(preset: Preset) -> str:
    return f"{preset.name} severity {preset.severity}" if preset.severity else preset.name


def _titles(rows: Sequence[Row]) -> list[str]:
    """Method, upscaler and choice of pose of every row, and what else not all of them share."""
    others = [
        (
            row.method.backbone,
            str(row.cell.res),
            _words(row.crops.preset),
            f"seed {row.cell.seed}",
            " ".join(f"{key}={value}" for key, value in row.cell.settings.items()),
        )
        for row in rows
    ]
    several = [len(set(words)) > 1 for words in zip(*others, strict=True)]
    titles = []
    for row, words in zip(rows, others, strict=True):
        choice = row.method.upscaling
        front = "no upscaler" if choice is None else f"{choice.label}, pose {choice.pose}"
        told = ", ".join(word for word, needed in zip(words, several, strict=True) if needed and word)
        titles.append("\n".join(textwrap.fill(line, 30) for line in (row.method.name, front, told) if line))
    return titles


def _seen(row: Row, title: str, area: float | None) -> Tile:
    """What the pose network of a row sees, and where it finds the keypoints; without an area no OKS."""
    if row.opened is None:
        return Tile(title, _blank(row), "not trained")
    method, crops, persons = row.method, row.crops, row.crops.persons
    model, _ = row.opened.model()
    device, seen = row.cell.torch_device(), list[Tensor]()
    try:
        found = predict(method, model, crops, flip=row.cell.flip, workers=0, device=device, enlarged=seen)
    except FloatingPointError:  # a failed row of the comparison
        return Tile(title, _blank(row), "failed: not finite")
    xy, score = found.keypoints[0, :, :2], found.keypoints[0, :, 2]
    place, _, labelled = crops.place(0, crops.view(0))
    interpolation = "nearest"
    if method.upscaling is not None:
        # however the row maps coordinates back, its picture is enlarged by areas of pixels
        place = compose(enlargement(crops.frame, method.upscaling.scale, "composed"), place)
        interpolation = "auto"
    opacity = np.where(score > method.rescoring.confident, 1.0, FAINT)
    note = "predicted keypoints"
    if area is not None:
        note = f"OKS {_oks(xy, persons.keypoints[0], labelled, area, persons.skeleton):.2f}"
    return Tile(
        title,
        seen[0][0].permute(1, 2, 0).numpy(),
        note,
        np.column_stack([apply(place, xy), opacity]),
        interpolation,
    )


def _blank(row: Row) -> Pixels:
    size = row.crops.frame.size
    return np.full((size.height, size.width, 3), 224, np.uint8)


def _oks(predicted: Float, true: Float, labelled: NDArray[np.bool_], area: float, skeleton: Skeleton) -> float:
    """COCO's OKS: of the labelled keypoints, over the area of the annotation."""
    # the others are put where they miss nothing, and what is missed is shared among the labelled ones
    placed = np.where(labelled[:, None], predicted, true)
    missed = 1 - float(oks(placed, area, true[None], np.array([area]), skeleton)[0])
    return 1 - missed * len(labelled) / int(labelled.sum())


def _draw(tiles: Sequence[Tile], skeleton: Skeleton) -> Figure:
    columns = min(COLUMNS, len(tiles))
    lines = -(-len(tiles) // columns)
    figure = Figure(figsize=(2.0 * columns, 3.3 * lines + 0.6), layout="constrained")
    for number, tile in enumerate(tiles, 1):
        axis = figure.add_subplot(lines, columns, number)
        axis.imshow(tile.pixels, interpolation=tile.interpolation)
        axis.autoscale(False)  # keypoints beyond the picture do not widen it
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(tile.title, fontsize=7)
        axis.set_xlabel(tile.note, fontsize=8)
        if tile.keypoints is not None:
            _draw_skeleton(axis, tile.keypoints[:, :2], tile.keypoints[:, 2], skeleton)
    return figure


def _draw_skeleton(axis: Axes, xy: Float, opacity: Float, skeleton: Skeleton) -> None:
    """Bones and keypoints with a thin dark outline; a bone is as faint as the fainter of its ends.

    The side of a bone is the sign of the sum over its ends.
    """
    side = np.array([name.startswith("left") - name.startswith("right") for name in skeleton.keypoints])
    bones = np.array(skeleton.bones)
    bones = bones[opacity[bones].min(1) > 0]
    sides = [COLOURS[one] for one in np.sign(side[bones].sum(1)).tolist()]
    for width, colours in ((2.4, "black"), (1.4, sides)):
        shades = to_rgba_array(colours, opacity[bones].min(1))
        axis.add_collection(LineCollection(xy[bones], colors=shades, linewidths=width))
    drawn = np.flatnonzero(opacity)
    shades = to_rgba_array([COLOURS[one] for one in side[drawn].tolist()], opacity[drawn])
    outline = to_rgba_array("black", opacity[drawn]).tolist()
    axis.scatter(xy[drawn, 0], xy[drawn, 1], s=10, c=shades, edgecolors=outline, linewidths=0.6, zorder=3)
