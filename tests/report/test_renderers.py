"""Texts that are shaped once look like matplotlib's own, and the files hold what was drawn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.textpath import text_to_path
from PIL import Image

from lrbench.report.renderers import UNITS, PngRenderer, Ruler, shape, write_png, write_svg

FONT = findfont(FontProperties())
TEXTS = ["AP (%)", "cal, hrnet_w16, recipe quick, 12 epochs", "AVAToLT", "n=10", " two  spaces ", "sha256:026cde52 - x"]


@pytest.mark.parametrize("text", TEXTS)
def test_words_side_by_side_are_the_text(text: str):
    own = shape(text, FONT)
    vertices, codes = text_to_path.get_text_path(FontProperties(fname=FONT, size=UNITS), text)
    assert own.codes.tolist() == list(codes)
    np.testing.assert_allclose(own.vertices, vertices, atol=0.02)  # of letters 100 high
    width, *heights = text_to_path.get_text_width_height_descent(text, FontProperties(fname=FONT, size=UNITS), False)
    assert own.width == pytest.approx(width, abs=10)  # matplotlib's ends with the ink
    assert own.extent == (own.width, *(pytest.approx(height, abs=1) for height in heights))


@pytest.mark.parametrize("text", ["", " ", "  "])
def test_no_ink_no_extent(text: str):
    assert shape(text, FONT).extent == (pytest.approx(31.8 * len(text), abs=0.1), 0, 0)  # DejaVu's space
    assert len(shape(text, FONT).outline) == 0


def ink(figure: Figure, renderer: RendererAgg) -> tuple[np.ndarray, float]:
    """Ends of what is drawn in black on white, px, and how much of it."""
    figure.draw(renderer)
    dark = 255 - np.asarray(renderer.buffer_rgba())[..., 0].astype(float)
    rows, columns = np.nonzero(dark > 60)
    return np.array([rows.min(), rows.max(), columns.min(), columns.max()]), dark.sum()


@pytest.mark.parametrize("angle", [0, 40, 90])
def test_texts_stand_where_matplotlib_has_them(angle: float):
    figure = Figure(figsize=(2, 2), dpi=150)
    figure.text(0.5, 0.5, "one line\nand, another", ha="center", va="center", rotation=angle)
    own, amount = ink(figure, PngRenderer(300, 300, 150))
    theirs, expected = ink(figure, RendererAgg(300, 300, 150))
    assert np.abs(own - theirs).max() <= 2
    assert amount == pytest.approx(expected, rel=0.1)


def test_a_ruler_measures_as_the_renderer_does():
    figure = Figure(dpi=150)
    text = figure.text(0.2, 0.3, "measured")
    assert text.get_window_extent(Ruler(150)).bounds == pytest.approx(
        text.get_window_extent(PngRenderer(300, 300, 150)).bounds
    )


def test_files(tmp_path: Path):
    figure = Figure(figsize=(3, 2), dpi=150)
    figure.add_subplot().set_title("a title, $x^2$ & more <b>", color="red")
    write_svg(figure, tmp_path / "figure.svg")
    write_png(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (450, 300)
    text = (tmp_path / "figure.svg").read_text()
    assert 'width="216pt" height="144pt"' in text
    defined, used = (re.findall(rf'{word}="#?(DejaVuSans-[^"]+)"', text) for word in ("id", "href"))
    assert len(defined) == len(set(defined))
    assert set(used) <= set(defined)
    assert 'fill="#ff0000"' in text or "fill: #ff0000" in text


def test_same_figure_same_files(tmp_path: Path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        figure = Figure(figsize=(3, 2), dpi=150)
        figure.add_subplot().plot([1, 2], [3, 4])
        write_svg(figure, folder / "figure.svg")
        write_png(figure, folder / "figure.png")
        assert figure.dpi == 150
    for name in ("figure.svg", "figure.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
