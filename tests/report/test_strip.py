"""The strip: its tiles, their order and words, what is drawn on them and where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import tiny_crowdpose
import tiny_mpii
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pycocotools.coco import COCO as Annotations
from pycocotools.cocoeval import COCOeval
from safetensors.torch import save_file

from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.datasets import open_dataset
from lrbench.geometry import Size
from lrbench.inference import flip_test, predict
from lrbench.method import load_method
from lrbench.report import strip as strips
from lrbench.report.strip import strip
from lrbench.structures import COCO, Predictions

SMALL = Size(32, 24)
PERSON = 2011
"""Third from the end of the tiny data's nine."""

Draw = Callable[..., Figure]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[Size, Path]:
    """Of hrnets for crops that an upscaler has enlarged, and for those it has not."""
    files = {}
    for size in (SMALL, Size(128, 96)):
        torch.manual_seed(1)
        network = load_method("hrnet", size, "hrnet_w16").build_model().network
        files[size] = tmp_path_factory.mktemp("weights") / f"{size}.safetensors"
        save_file(network.state_dict(), files[size])
    return files


@pytest.fixture
def row(tiny_data: Path, tmp_path: Path, weights: dict[Size, Path]) -> Callable[..., Cell]:
    """A row with weights; the upscaler is the first argument."""

    def make(sr: str = "none", **changes: Any) -> Cell:
        usual = {"method": "hrnet", "res": SMALL, "data": str(tiny_data), "align": "corner", "pose": "clean"}
        usual |= {"recipe": "quick", "device": "cpu", "precision": "32-true", "workers": 0, "runs": tmp_path / "runs"}
        usual["weights"] = weights[SMALL if sr == "none" else Size(128, 96)]
        return Cell(sr=sr, **(usual | changes))

    return make


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draw a strip; returns its figure, which lies in ``new/strip.png`` as well."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *words: Any, **options: Any) -> None:
        drawn.append(figure)
        save(figure, *words, **options)

    def run(cells: Sequence[Cell], **options: Any) -> Figure:
        monkeypatch.setattr(Figure, "savefig", keep)
        out = tmp_path / "new" / "strip.png"
        assert strip(Bench(), cells, out, **options) == out
        return drawn[-1]

    return run


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


def points(axis: Axes) -> PathCollection:
    (found,) = (artist for artist in axis.collections if isinstance(artist, PathCollection))
    return found


def decoded(cell: Cell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Px of the small crop, scores, and what the network sees, in small steps."""
    bench = Bench()
    opened = bench.open(cell)
    crops = bench.crops(cell.data, cell.split, opened.method, cell.preset(), seed=cell.lr_seed)
    number = int(np.flatnonzero(crops.persons.id == PERSON)[0])
    pixels = crops.batch([number]).pixels.float() / 255
    model = opened.model()[0].eval()
    with torch.no_grad():
        found = opened.method.codec.decode(flip_test(model, opened.method.codec, pixels))
        seen = model.prepare(pixels)
    return found.xy[0].double().numpy(), found.score[0].numpy(), seen[0].permute(1, 2, 0).numpy()


def test_tiles(draw, row, tmp_path):
    cells = [
        row("bicubic"),
        row("bicubic", lr_preset="sensor"),
        row("none"),
        row("lanczos", pose="sr"),
        row("none", lr_preset="sensor"),
        row("bicubic", method="dark"),
        row("none", method="meanpose", weights=None, lr_preset="sensor"),
    ]
    figure = draw(cells, person=PERSON)
    assert (tmp_path / "new" / "strip.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert titles(figure) == [
        "original\n108x81",
        "paper\n32x24, corner",
        "sensor severity 3\n32x24, corner",
        "hrnet\nbicubic x4, pose clean\nhrnet_w16, paper",
        "dark\nbicubic x4, pose clean\nhrnet_w16, paper",
        "hrnet\nno upscaler\nhrnet_w16, paper",
        "hrnet\nlanczos x4, pose sr\nhrnet_w16, paper",
        "hrnet\nbicubic x4, pose clean\nhrnet_w16, sensor severity 3",
        "hrnet\nno upscaler\nhrnet_w16, sensor severity 3",
        "meanpose\nno upscaler\nsensor severity 3",
    ]
    below = [axis.get_xlabel() for axis in figure.axes]
    assert below[:3] == ["annotated keypoints", "input pixels", "input pixels"]
    assert all(note.startswith("OKS 0.") for note in below[3:-1])
    assert below[-1] == "not trained"
    assert [len(axis.collections) > 0 for axis in figure.axes] == [True, False, False] + [True] * 6 + [False]
    places = [axis.get_subplotspec() for axis in figure.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [divmod(i, 6) for i in range(10)]
    words = " ".join([figure.get_suptitle(), figure.get_supxlabel()])
    assert "tiny/val, person 2011, annotated box 87 px high" in words
    assert "one person: an illustration, no evidence of a difference" in words
    assert "faint: score too low to count" in words


def test_what_rows_share_stands_in_no_title(draw, row):
    assert titles(draw([row("bicubic", seed=3, lr_preset="antialias")]))[-1] == "hrnet\nbicubic x4, pose clean"
    seeds = titles(draw([row("bicubic", seed=seed) for seed in (0, 3)]))
    assert seeds[2:] == [f"hrnet\nbicubic x4, pose clean\nseed {seed}" for seed in (0, 3)]


@pytest.mark.parametrize(
    ("sr", "scale", "changes"),
    [("none", 1, {}), ("bicubic", 4, {}), ("bicubic", 4, {"sr_map": "naive"}), ("lanczos", 4, {"align": "dark"})],
)
def test_the_network_s_picture_and_its_keypoints(draw, row, sr, scale, changes):
    cell = row(sr, **changes)
    xy, score, seen = decoded(cell)
    axis = draw([cell], person=PERSON).axes[-1]
    (picture,) = axis.images
    assert picture.get_array().shape == (32 * scale, 24 * scale, 3)
    np.testing.assert_allclose(picture.get_array(), 255 * seen, atol=1e-3)
    np.testing.assert_allclose(points(axis).get_offsets(), (xy + 0.5) * scale - 0.5, atol=1e-3)
    np.testing.assert_array_equal(points(axis).get_facecolors()[:, 3] < 1, score <= 0.2)


def test_input_pixels_are_shown_as_they_are(draw, row):
    plain, enlarged = (draw([row(sr, lr_preset="sensor")], person=PERSON) for sr in ("none", "bicubic"))
    picture, same = (figure.axes[1].images[0] for figure in (plain, enlarged))
    np.testing.assert_array_equal(picture.get_array(), plain.axes[2].images[0].get_array())
    np.testing.assert_array_equal(picture.get_array(), same.get_array())
    assert picture.get_interpolation() == plain.axes[2].images[0].get_interpolation() == "nearest"


def test_annotation_on_the_original(draw, row, tiny_data):
    data = tiny.read(tiny_data)
    (annotation,) = (a for a in data["annotations"] if a["id"] == PERSON)
    (number,) = (i for i, image in enumerate(data["images"]) if image["id"] == annotation["image_id"])
    axis = draw([row("bicubic", lr_preset="sensor", severity=5)], person=PERSON).axes[0]
    true = np.array(annotation["keypoints"]).reshape(-1, 3)
    drawn = np.array(points(axis).get_offsets())
    assert len(drawn) == (true[:, 2] > 0).sum() == 16
    bones = [artist for artist in axis.collections if isinstance(artist, LineCollection)]
    assert [len(artist.get_segments()) for artist in bones] == [17, 17]  # two end at the right ear
    # the box, less one px, padded by a quarter on all sides together; 4:3 because it is narrower than that
    x, y, w, h = annotation["bbox"]
    corner = (x + (w - 1) / 2 - 0.375 * 1.25 * (h - 1), y + (h - 1) / 2 - 0.5 * 1.25 * (h - 1))
    np.testing.assert_allclose(drawn, true[true[:, 2] > 0, :2] - corner, atol=0.6)
    photograph = cv2.imread(str(tiny.image(tiny_data, row=number)))[:, :, ::-1]
    u, v = (grid.astype(np.float32) for grid in np.meshgrid(np.arange(81), np.arange(108)))
    expected = cv2.remap(photograph, u + np.float32(corner[0]), v + np.float32(corner[1]), cv2.INTER_LINEAR)
    assert np.abs(axis.images[0].get_array().astype(float) - expected).mean() < 1


def test_sides_have_colours_and_bones_are_as_faint_as_their_ends(draw, row, monkeypatch):
    score = np.full((1, 17, 1), 0.9)
    score[0, [5, 13, 16]] = 0.1

    def find(_: Any, __: Any, crops: Any, *, enlarged: list[torch.Tensor], **___: Any) -> Predictions:
        enlarged.append(crops.batch([0]).pixels)
        keypoints = np.concatenate([crops.persons.keypoints, score], 2)  # that of the right ear far outside
        return Predictions(crops.persons.image, keypoints, np.ones(1), np.ones(1))

    monkeypatch.setattr(strips, "predict", find)
    axis = draw([row("none")], person=PERSON).axes[-1]
    assert axis.get_xlabel() == "OKS 1.00"
    blue, orange, white = (to_rgb(strips.COLOURS[side]) for side in (1, -1, 0))
    colours = points(axis).get_facecolors()
    assert [tuple(colour) for colour in colours[:, :3]] == [white] + [blue, orange] * 8
    assert np.flatnonzero(colours[:, 3] == strips.FAINT).tolist() == [5, 13, 16]
    assert (np.delete(colours[:, 3], [5, 13, 16]) == 1).all()
    outline, bones = (artist for artist in axis.collections if isinstance(artist, LineCollection))
    np.testing.assert_array_equal(outline.get_colors()[:, :3], 0)
    # left knee to ankle, right knee to ankle, hips, left shoulder to hip, right one, shoulders, nose to left eye
    some = [bones.get_colors()[COCO.bones.index(bone)] for bone in (
        (15, 13), (16, 14), (11, 12), (5, 11), (6, 12), (5, 6), (0, 1)
    )]  # fmt: skip
    assert [tuple(colour[:3]) for colour in some] == [blue, orange, white, blue, orange, white, blue]
    assert [colour[3] for colour in some] == [strips.FAINT] * 2 + [1, strips.FAINT, 1, strips.FAINT, 1]
    # what lies outside does not widen the tile
    assert points(axis).get_offsets().min() < -5
    assert axis.get_xlim() == (-0.5, 23.5)
    assert axis.get_ylim() == (31.5, -0.5)


def test_oks_is_that_of_pycocotools(draw, row, tiny_data, trained):
    cell = row(method="meanpose", weights=None, res=Size(64, 48), align=None, epochs=1, batch=4, runs=trained)
    bench = Bench()
    opened = bench.open(cell)
    crops = bench.crops(cell.data, cell.split, opened.method, cell.preset())
    found = predict(opened.method, opened.model()[0], crops, workers=0)
    truth = Annotations(str(tiny.annotations(tiny_data)))
    expected = []
    for person, keypoints in zip(crops.persons.id.tolist(), found.keypoints, strict=True):
        image = truth.anns[person]["image_id"]
        result = {"image_id": image, "category_id": 1, "score": 1.0, "keypoints": keypoints.ravel().tolist()}
        evaluator = COCOeval(truth, truth.loadRes([result]), "keypoints")
        evaluator._prepare()
        number = [annotation["id"] for annotation in evaluator._gts[image, 1]].index(person)
        expected.append(evaluator.computeOks(image, 1)[0, number])
    shown = [draw([cell], person=person).axes[-1].get_xlabel() for person in crops.persons.id.tolist()]
    assert shown == [f"OKS {similarity:.2f}" for similarity in expected]
    assert max(expected) > 0.1  # so that one keypoint more or less shows


def test_who_is_drawn(draw, row, tiny_copy):
    with tiny.change(tiny_copy) as data:
        largest = max(data["annotations"], key=lambda a: a["bbox"][2] * a["bbox"][3])
        largest["keypoints"][:3] = [0, 0, 0]
        others = [a for a in data["annotations"] if a is not largest]
        expected = max(others, key=lambda a: a["bbox"][2] * a["bbox"][3])["id"]
    assert f"person {expected}," in draw([row("none", data=str(tiny_copy))]).get_suptitle()


def test_a_network_that_gives_no_numbers_is_a_tile(draw, row, monkeypatch):
    def diverge(*_: Any, **__: Any) -> None:
        raise FloatingPointError

    monkeypatch.setattr(strips, "predict", diverge)
    axis = draw([row("none")]).axes[-1]
    assert axis.get_xlabel() == "failed: not finite"
    assert not axis.collections


@pytest.mark.parametrize(("data", "split", "note"), [(tiny_mpii, "valid", "predicted"), (tiny_crowdpose, "val", "OKS")])
def test_other_skeletons(draw, row, tmp_path, data, split, note):
    """MPII has no sigmas, so nobody's OKS is told."""
    root = data.write(tmp_path / "data")
    cell = row(method="meanpose", weights=None, data=str(root), split=split, align=None, epochs=1, batch=4)
    Bench().train(cell)
    figure = draw([cell])
    assert figure.axes[-1].get_xlabel().startswith(note)
    assert ("OKS" in figure.get_supxlabel()) == (note == "OKS")
    skeleton = open_dataset(str(root), split).persons.skeleton
    assert len(points(figure.axes[-1]).get_offsets()) == len(skeleton)
    colours = {tuple(colour) for colour in points(figure.axes[-1]).get_facecolors()[:, :3]}
    assert colours == {to_rgb(colour) for colour in strips.COLOURS.values()}


@pytest.mark.parametrize(
    ("cells", "person", "message"),
    [
        (1, 12345, "person 12345: no labelled person of this id in tiny/val"),
        (0, None, "no cells to draw; give rows that are measured here"),
    ],
)
def test_refusals(row, tmp_path, cells, person, message):
    with pytest.raises(ValueError, match=message) as caught:
        strip(Bench(), [row("none")] * cells, tmp_path / "strip.png", person=person)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "strip.png").exists()
