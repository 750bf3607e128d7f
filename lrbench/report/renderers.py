"""Figures as PNG and SVG files, with matplotlib's renderers and a faster way to draw texts.

To find the glyphs of a text and their places takes matplotlib longer than all else that it draws here, and it is done
four times: to measure the text and to draw it, for each format, and again for the next figure with the same label.
Here a word is shaped once per process; its outlines are then filled like any other path, so that both formats show the
same letters. Texts are drawn as they are: a dollar sign begins no formula.
"""

# mypy: disallow-untyped-calls=False
# (matplotlib's backends have no types)

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, cast

import matplotlib
import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray
from PIL import Image

UNITS = text_to_path.FONT_SCALE
"""Size of the letters of a `Shape`."""


@dataclass(frozen=True)
class Shape:
    """Text on one line in a font, in `UNITS`, y up, from the start of its baseline.

    Attributes:
        glyphs: name and x, in order.
        vertices, codes: of the outlines of all of them, as matplotlib's paths have them.
        width: to the end of its last letter, or of its last space.
    """

    glyphs: tuple[tuple[str, float], ...]
    vertices: NDArray[np.float64]
    codes: NDArray[np.uint8]
    width: float

    @cached_property
    def outline(self) -> Outline:
        """The outlines as one path."""
        return Outline(self.vertices, self.codes)

    @cached_property
    def extent(self) -> tuple[float, float, float]:
        """Width, and height and descent of what is inked."""
        if not len(self.vertices):
            return self.width, 0.0, 0.0
        bottom, top = self.vertices[:, 1].min(), self.vertices[:, 1].max()
        return self.width, float(top - bottom), float(-bottom)


_glyphs: dict[str, Outline] = {}
"""Outline of every glyph that was met, from its own origin."""


@lru_cache(4096)
def shape(text: str, font: str) -> Shape:
    """Shape a line of text; `font` is the path of a file."""
    words = [_word(word, font) for word in text.split(" ")]
    space = _word("", font).width
    starts = list(itertools.accumulate((word.width for word in words), initial=0.0))
    return Shape(
        tuple((name, start + x) for word, start in zip(words, starts, strict=False) for name, x in word.glyphs),
        np.concatenate([word.vertices + np.array([start, 0]) for word, start in zip(words, starts, strict=False)]),
        np.concatenate([word.codes for word in words]),
        starts[-1] - space,
    )


@lru_cache(4096)
def _word(word: str, font: str) -> Shape:
    """Shape one word and the space after it; a thousand labels have a hundred words."""
    face = get_font(font)
    face.set_size(UNITS, 72)  # points are pixels
    # the full stop tells where the next word begins
    placed, found, _ = text_to_path.get_glyphs_with_font(face, f"{word} .")
    *placed, (_, width, *_) = placed
    glyphs, vertices, codes = [], [np.empty((0, 2))], [np.empty(0, np.uint8)]
    for name, x, y, scale in placed:
        if len(found[name][0]):  # a space has no outline
            glyphs.append((name, x))
            vertices.append(found[name][0] * scale + np.array([x, y]))
            codes.append(found[name][1])
            if name not in _glyphs:
                _glyphs[name] = Outline(found[name][0].round(2), found[name][1])
    return Shape(tuple(glyphs), np.concatenate(vertices), np.concatenate(codes), width)


class Shaping(RendererBase):
    """What the renderers share: the measures of texts."""

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> tuple[float, float, float]:
        """In px."""
        width, height, descent = shape(s, findfont(prop)).extent
        size = self.size_of(prop)
        return width * size, height * size, descent * size

    def size_of(self, prop: FontProperties) -> float:
        """Px per unit of a `Shape`."""
        return cast(float, self.points_to_pixels(prop.get_size_in_points())) / UNITS


class Ruler(Shaping):
    """Measures, and draws nothing.

    Args:
        dpi: dots per inch.
    """

    def __init__(self, dpi: float) -> None:
        super().__init__()
        self.dpi = dpi

    def points_to_pixels(self, points: Any) -> Any:
        """At the renderer's dots per inch."""
        return points * self.dpi / 72


class PngRenderer(Shaping, RendererAgg):
    """Matplotlib's, with filled outlines for texts."""

    def draw_text(
        self, gc: GraphicsContextBase, x: float, y: float, s: str, prop: FontProperties, angle: float,
        ismath: Any = False, mtext: Any = None,
    ) -> None:  # fmt: skip
        """One line of a text; x and y of its start, px, y down."""
        place = Affine2D().scale(self.size_of(prop)).rotate_deg(angle).translate(x, self.height - y)
        filled = self.new_gc()
        filled.copy_properties(gc)
        filled.set_linewidth(0)
        filled.set_snap(False)
        self.draw_path(filled, shape(s, findfont(prop)).outline, place, gc.get_rgb())


class SvgRenderer(Shaping, RendererSVG):
    """Matplotlib's, with every glyph defined once and used wherever it occurs; the text stands in a comment.

    Args:
        width, height: points.
        file: to write to.
    """

    def __init__(self, width: float, height: float, file: IO[str]) -> None:
        super().__init__(width, height, file, metadata={"Date": None})
        self._defined: set[str] = set()

    def draw_text(
        self, gc: GraphicsContextBase, x: float, y: float, s: str, prop: FontProperties, angle: float,
        ismath: Any = False, mtext: Any = None,
    ) -> None:  # fmt: skip
        """One line of a text; x and y of its start, points, y down."""
        glyphs, writer = shape(s, findfont(prop)).glyphs, self.writer
        if new := {name for name, _ in glyphs} - self._defined:
            writer.start("defs")
            for name in sorted(new):
                self._define(name)
            writer.end("defs")
            self._defined |= new
        red, green, blue = (round(255 * share) for share in gc.get_rgb()[:3])
        turned, size = f" rotate({-angle:g})" if angle else "", self.size_of(prop)
        writer.comment(s)
        writer.start(
            "g", fill=f"#{red:02x}{green:02x}{blue:02x}",
            transform=f"translate({x:.2f} {y:.2f}){turned} scale({size:g} {-size:g})",
        )  # fmt: skip
        for name, start in glyphs:
            writer.element("use", attrib={"xlink:href": f"#{name}", "x": f"{start:.2f}"})
        writer.end("g")

    def _define(self, glyph: str) -> None:
        self.open_group("glyph", gid=glyph)
        plain = self.new_gc()
        plain.set_linewidth(0)
        upwards = Affine2D().scale(1, -1).translate(0, self.height)  # as defined, not as on the page
        self.draw_path(plain, _glyphs[glyph], upwards, (0, 0, 0))  # black is not written, so each use has its colour
        self.close_group("glyph")


def write_svg(figure: Figure, path: Path) -> None:
    """Write a figure as SVG; without a date and with fixed ids, so that the same figure gives the same file.

    Raises:
        OSError: the file cannot be written.
    """
    dpi = figure.dpi
    figure.dpi = 72  # points are the units of SVG
    with matplotlib.rc_context({"svg.hashsalt": path.stem}), path.open("w", encoding="utf-8") as file:
        renderer = SvgRenderer(*figure.bbox.size, file)
        figure.draw(renderer)
        renderer.finalize()
    figure.dpi = dpi


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    renderer = PngRenderer(*figure.bbox.size, figure.dpi)
    figure.draw(renderer)
    # level 1 of 9: the others take several times as long for little
    Image.fromarray(np.asarray(renderer.buffer_rgba())).save(path, compress_level=1, dpi=(figure.dpi, figure.dpi))
