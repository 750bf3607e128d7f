"""Rows beside a table with upscalers: which there are, what differs in them, and that none stands twice."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from lrbench.cells import Cell
from lrbench.comparison import Planned, Selection, plan_methods, plan_table
from lrbench.controls import ROWS, Control, controls, row_of, upscalers_of
from lrbench.geometry import Size
from lrbench.models.upscalers import UPSCALERS
from lrbench.structures import POSES

SMALL = Size(64, 48)
SHARED: dict[str, Any] = {"method": "", "res": SMALL, "device": "cpu"}


def planned(recipe: str = "quick", methods: tuple[str, ...] = ("udp",), **options: Any) -> list[Planned]:
    return plan_table("cal/2", Cell(**SHARED, recipe=recipe), Selection(methods=methods, **options))


def rows(items: list[Planned]) -> list[tuple[str, str, str, str, str]]:
    """Letter, method, pixels, upscaler and choice of pose of every measured row."""
    found = []
    for item in items:
        assert item.cell is not None
        choice = item.cell.upscaling()
        pose = "" if choice is None else choice.pose
        found.append((item.row, item.cell.method, item.cell.lr_preset, item.cell.sr, pose))
    return found


def of_letter(letter: str, items: list[Planned]) -> list[tuple[str, str]]:
    """Upscaler and choice of pose of the rows of a letter."""
    return [row[3:] for row in rows(items) if row[0] == letter]


def test_every_control_changes_one_thing():
    made = controls(["spsr", "edsr"], [], "paper", ["antialias"])
    first = [
        Control("B", "paper", "bicubic", "clean"),
        Control("C", "paper", "spsr", "clean"),
        Control("C", "paper", "edsr", "clean"),
        Control("D", "paper", "bicubic", "up"),
        Control("E", "paper", "spsr", "sr"),
        Control("E", "paper", "edsr", "sr"),
    ]
    assert made[:6] == first
    assert made[6:] == [dataclasses.replace(control, row="F", lr_preset="antialias") for control in first]
    assert max(Counter((c.lr_preset, c.sr, c.pose) for c in made).values()) == 1


def test_other_choices_of_pose_are_rows_of_their_own():
    made = controls(["spsr"], ["clean", "joint", "sr"], "paper", [])
    assert [(control.row, control.pose) for control in made] == [
        ("B", "clean"), ("C", "clean"), ("D", "up"), ("E", "sr"), ("G", "joint")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sr", "letters"),
    [
        ("bicubic", {"clean": "B", "up": "D", "sr": "D", "mix": "G", "joint": "G", "tdp": "G"}),
        ("edsr", {"clean": "C", "up": "G", "sr": "E", "mix": "G", "joint": "G", "tdp": "G"}),
    ],
)
def test_letters(sr: str, letters: dict[str, str]):
    assert {pose: row_of(sr, pose) for pose in POSES} == letters
    assert set(letters.values()) <= set(ROWS)


@pytest.mark.parametrize(
    ("given", "quick", "expected"),
    [
        ([], True, ["spsr_tiny", "edsr", "srvgg"]),
        ([], False, ["spsr", "edsr", "srvgg", "rrdb"]),
        (["none", "bicubic", "edsr"], True, ["edsr"]),
        (["edsr", "spsr"], False, ["spsr", "edsr"]),  # the table's own first
        (["edsr", "runs/SPSR.pth"], False, ["runs/SPSR.pth", "edsr"]),
        (["srvgg", "edsr"], False, ["srvgg", "edsr"]),
        (["none"], True, []),
    ],
)
def test_upscalers_of_a_table(given: list[str], quick: bool, expected: list[str]):
    assert upscalers_of("SPSR x4", given, quick=quick) == expected


def test_a_file_of_ours_says_what_it_is(tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_file({}, path, {"lrbench": '{"upscaler": "spsr_tiny"}'})
    assert upscalers_of("SPSR x4", ["edsr", str(path)], quick=False) == [str(path), "edsr"]


def test_rows_of_the_quick_recipe():
    """Narrow stand-ins, and no upscaler that is too dear for a processor."""
    items = planned()
    assert (
        rows(items)[:4] == [("A", "udp", "paper", "none", "")] * 2 + [("C", "udp", "paper", "spsr_tiny", "clean")] * 2
    )
    assert [item.beside.ap if item.beside else None for item in items[:4]] == [0.474, 0.510, 0.525, 0.541]
    assert all(item.beside is None for item in items[4:])
    beside = [
        ("B", "paper", "bicubic", "clean"),
        ("C", "paper", "edsr", "clean"),
        ("C", "paper", "srvgg", "clean"),
        ("D", "paper", "bicubic", "up"),
        ("E", "paper", "spsr_tiny", "sr"),
        ("E", "paper", "edsr", "sr"),
        ("E", "paper", "srvgg", "sr"),
        ("F", "antialias", "none", ""),
        ("F", "antialias", "bicubic", "clean"),
        ("F", "antialias", "spsr_tiny", "clean"),
        ("F", "antialias", "edsr", "clean"),
        ("F", "antialias", "srvgg", "clean"),
        ("F", "antialias", "bicubic", "up"),
        ("F", "antialias", "spsr_tiny", "sr"),
        ("F", "antialias", "edsr", "sr"),
        ("F", "antialias", "srvgg", "sr"),
        ("H", "paper", "none", ""),
    ]
    assert [(letter, *rest) for letter, _, *rest in rows(items)[4:]] == beside
    cells = [item.cell for item in items if item.cell]
    assert {cell.backbone for cell in cells} == {"hrnet_w16"}
    # W32 and W48 have one stand-in, whose controls need not stand twice
    assert max(Counter(map(repr, cells[4:])).values()) == 1


def test_rows_of_the_paper_recipe():
    """Both backbones, and every usual upscaler."""
    items = planned("paper")
    cells = [item.cell for item in items if item.cell]
    assert max(Counter(map(repr, cells)).values()) == 1
    assert {cell.backbone for cell in cells} == {"hrnet_w32", "hrnet_w48"}
    learned = ["spsr", "edsr", "srvgg", "rrdb"]
    expected = {
        "A": [("none", "")],
        "B": [("bicubic", "clean")],
        "C": [(name, "clean") for name in learned],
        "D": [("bicubic", "up")],
        "E": [(name, "sr") for name in learned],
        "H": [("none", "")],
    }
    expected["F"] = [row for letter in "ABCDE" for row in expected[letter]]
    for letter, wanted in expected.items():
        assert Counter(of_letter(letter, items)) == Counter(wanted * 2), letter
    assert {pixels for letter, _, pixels, *_ in rows(items) if letter == "F"} == {"antialias"}
    assert {pixels for letter, _, pixels, *_ in rows(items) if letter != "F"} == {"paper"}


def test_the_ceiling_is_a_plain_network_of_the_enlarged_size():
    (ceiling,) = [item.cell for item in planned() if item.row == "H"]
    assert ceiling is not None
    assert (str(ceiling.res), ceiling.sr, ceiling.lr_preset, ceiling.align) == ("256x192", "none", "paper", "own")


def test_every_letter_that_is_used_is_explained():
    assert {item.row for item in planned(methods=())} == set(ROWS) - {"G"}


def test_choices_of_pose_for_the_printed_rows():
    """They stand beside the report under their own letter; nothing stands twice, and nothing is lost."""
    usual = {row[3:] for row in rows(planned()) if row[0] not in "AFH"}
    for poses in (("sr",), ("clean", "sr"), ("joint",), ("sr", "mix")):
        items = planned(poses=poses)
        found = rows(items)
        printed = [(row[0], row[4]) for row, item in zip(found, items, strict=True) if item.beside and row[3] != "none"]
        expected = [({"clean": "C", "sr": "E"}.get(pose, "G"), pose) for pose in poses]
        assert Counter(printed) == Counter(expected * 2)  # W32 and W48
        beside = [item.cell for item in items if not item.beside]
        assert max(Counter(map(repr, beside)).values()) == 1
        assert not {repr(item.cell) for item in items if item.beside} & set(map(repr, beside))
        assert usual <= {row[3:] for row in found}


@pytest.mark.parametrize("front", ["none", "bicubic"])
def test_bicubic_alone(front: str):
    """Beside the report then stands what enlarging alone does, and under its letter."""
    items = planned(upscalers=[front])
    assert Counter(row[0] for row in rows(items)) == {"A": 2, "B": 2, "D": 1, "F": 3, "H": 1}
    assert [item.row for item in items if item.beside] == ["A", "A", "B", "B"]


def test_a_choice_of_pose_that_does_not_exist():
    with pytest.raises(ValueError, match="unknown choice of pose 'klean'; did you mean clean"):
        planned(poses=["klean"])


def test_all_methods_of_the_table():
    """Rows of CAL have no upscaler in the paper, and get none here; other pixels they get."""
    found = rows(planned(methods=()))
    assert Counter(letter for letter, method, *_ in found if method == "cal") == {"A": 2, "F": 1}
    udp, hrnet = ([row[:1] + row[2:] for row in found if row[1] == name] for name in ("udp", "hrnet"))
    assert udp == hrnet
    # printed rows in the paper's order, then the controls by letter
    printed = [row[0] for row in found[:10]]
    assert printed == ["A"] * 4 + ["C"] * 4 + ["A"] * 2
    beside = [row[0] for row in found[10:]]
    assert beside == sorted(beside)


def test_no_controls():
    found = rows(planned(controls=False))
    assert [(letter, sr, pose) for letter, _, _, sr, pose in found] == [("", "none", "")] * 2 + [
        ("", "spsr_tiny", "clean")
    ] * 2


def test_other_pixels_without_controls():
    found = [row[2:] for row in rows(planned(controls=False, presets=["paper", "sensor"]))]
    assert found == [
        *[("paper", "none", "")] * 2,
        *[("paper", "spsr_tiny", "clean")] * 2,
        ("sensor", "none", ""),
        ("sensor", "spsr_tiny", "clean"),
    ]


def test_no_letters_in_tables_without_upscalers():
    items = plan_table("cal/8", Cell(**SHARED, recipe="quick"), Selection(methods=["cal"]))
    assert items
    assert {item.row for item in items} == {""}
    assert {item.cell.align for item in items if item.cell} == {None}


def test_given_upscalers_replace_the_usual_ones():
    items = planned(upscalers=["none", "bicubic", "espcn", "spsr"])
    assert of_letter("C", items) == [("spsr", "clean"), ("spsr", "clean"), ("espcn", "clean")]
    assert of_letter("E", items) == [("spsr", "sr"), ("espcn", "sr")]
    assert of_letter("B", items) == [("bicubic", "clean")]


def test_given_files_replace_the_usual_ones(tmp_path: Path):
    path = tmp_path / "spsr.safetensors"
    save_file(UPSCALERS["srvgg_tiny"].build(4).state_dict(), path)
    items = planned(upscalers=[str(path)])
    assert of_letter("E", items) == [(str(path), "sr")]
    assert {sr for _, _, _, sr, _ in rows(items)} == {"none", "bicubic", str(path)}


def test_given_pixels_replace_the_second_ones():
    items = planned(presets=["antialias", "sensor", "paper"])
    found = rows(items)
    pixels = {letter: [row[2] for row in found if row[0] == letter] for letter in ROWS}
    assert set(pixels["A"] + pixels["B"] + pixels["C"] + pixels["D"] + pixels["E"]) == {"antialias"}
    assert Counter(pixels["F"]) == {"sensor": 9, "paper": 9}
    assert pixels["H"] == ["paper"]
    assert {row[2] for row in rows(planned(presets=["antialias"]))} == {"antialias", "paper"}  # paper: the ceiling
    assert "F" not in {row[0] for row in rows(planned(presets=["antialias"]))}


def test_seeds():
    one, three = planned(), planned(seeds=(0, 1, 2))
    assert len(three) == 3 * len(one)
    assert Counter(item.cell.seed for item in three if item.cell) == {seed: len(one) for seed in (0, 1, 2)}


def test_clean_weights_are_those_of_the_method(tmp_path: Path):
    path = tmp_path / "udp.pth"
    items = planned(methods=("udp", "hrnet"), clean={"udp": path})
    ceilings = {item.cell.method: item.cell.weights for item in items if item.cell and item.row == "H"}
    assert ceilings == {"udp": path, "hrnet": None}


class TestMethods:
    def cells(self, **options: Any) -> list[Cell]:
        items = plan_methods(Cell(**SHARED, recipe="quick"), Selection(sizes=[SMALL], **options))
        return [item.cell for item in items if item.cell]

    def test_one_row_of_each(self):
        names = ["none", "bicubic", "srvgg_tiny"]
        cells = self.cells(methods=["udp", "hrnet"], upscalers=names, poses=["clean", "sr"], presets=["paper", "none"])
        found = [(c.lr_preset, c.method, c.sr, choice.pose if (choice := c.upscaling()) else "") for c in cells]
        fronts = [("none", ""), ("bicubic", "clean"), ("bicubic", "up"), ("srvgg_tiny", "clean"), ("srvgg_tiny", "sr")]
        assert found == [(p, m, *front) for p in ("paper", "none") for front in fronts for m in ("udp", "hrnet")]

    def test_the_same_by_two_names_stands_once(self):
        cells = self.cells(methods=["udp"], upscalers=["bicubic", "bicubic"], poses=["up", "sr"])
        assert [(cell.sr, cell.pose) for cell in cells] == [("bicubic", "up")]

    def test_with_an_upscaler_all_rows_read_crops_of_one_rule(self):
        names = ["hrnet", "udp", "dark"]
        own = {"hrnet": "biased", "udp": "corner", "dark": "dark"}
        plain = {cell.method: cell.compose().frame for cell in self.cells(methods=names)}
        assert {name: frame.align for name, frame in plain.items()} == own
        shared = [cell.compose().frame for cell in self.cells(methods=names, upscalers=["none", "bicubic"])]
        assert len(shared) == 6
        assert {(frame.size, frame.align) for frame in shared} == {(SMALL, "corner")}

    def test_a_rule_that_is_asked_for_stays(self):
        cell = Cell(**SHARED, recipe="quick", align="own")
        items = plan_methods(cell, Selection(methods=["hrnet"], sizes=[SMALL], upscalers=["none", "bicubic"]))
        assert {item.cell.compose().frame.align for item in items if item.cell} == {"biased"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"upscalers": ["bicubik"]}, "unknown upscaler 'bicubik'; did you mean bicubic"),
            ({"upscalers": ["bicubic"], "poses": ["klean"]}, "unknown choice of pose 'klean'; did you mean clean"),
            ({"upscalers": ["bicubic"], "poses": ["joint"]}, "it has nothing to train; choose clean, up, sr or mix"),
            ({"presets": ["papr"]}, "unknown degradation 'papr'; did you mean paper"),
        ],
    )
    def test_refusals(self, options: dict[str, Any], message: str):
        with pytest.raises(ValueError, match=message):
            self.cells(methods=["udp"], **options)
