from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lrbench.geometry import Size
from lrbench.report.reported import comparison, find
from lrbench.report.tables import compare_markdown, compare_table, letters, percent

PROTOCOL = {
    "dataset": "synth",
    "split": "val",
    "boxes": "gt",
    "flip": True,
    "lr_preset": "paper",
    "degradation": None,
    "recipe": "quick",
    "train_data": "synth/train",
    "train_persons": 2000,
}


def row(method: str, label: str | None, ap: float | None, **changes: Any) -> dict[str, Any]:
    found = find((label,), "hrnet_w32", Size(64, 48)) if label else None
    metrics = {"ap": ap, "ap50": 0.6, "ap75": 0.25, "ap_m": None, "ap_l": 0.32, "ar": 0.3605}
    return {
        "method": method,
        "backbone": "hrnet_w16",
        "sr": "none",
        "res": "64x48",
        "seed": 0,
        "status": "done",
        "reason": "",
        "metrics": metrics,
        "ci95": {},
        "reported": comparison(found, backbone="hrnet_w16", differences=["data: synth val, not COCO"])
        if found
        else None,
        "params": 7_600_000,
        "macs": 130_000_000,
        "n_images": 120,
        "n_persons": 312,
    } | changes


def rows() -> list[dict[str, Any]]:
    return [
        row("one", "HRNet", 0.3),
        row("two", "CAL", None, status="failed", reason="out of memory", metrics=None, n_persons=None),
        row("three", None, 0.0),
    ]


def printed(given: list[dict[str, Any]], width: int, protocol: dict[str, Any] = PROTOCOL, **options: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **({"force_terminal": False} | options)).print(compare_table(protocol, given))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


GOLDEN_100 = """\
Measured on synth val (rendered pictures, not COCO), 312 persons
crops 64x48; GT boxes; flip test; plain crops; recipe quick; trained on synth/train (2000 persons);
seed 0
                    Params                                               |  reported
Method   Backbone      (M)  GMACs    AP  AP50  AP75  AP(M)  AP(L)    AR  |        AP      backbone
---------------------------------------------------------------------------------------------------
one      hrnet_w16     7.6   0.13  30.0  60.0  25.0      -   32.0  36.0  |      29.7  bc  HRNet-W32
two (a)  hrnet_w16     7.6   0.13     -     -     -      -      -     -  |      58.4  bc  HRNet-W32
three    hrnet_w16     7.6   0.13   0.0  60.0  25.0      -   32.0  36.0  |         -

 a  two: failed, out of memory
 b  data: synth val, not COCO
 c  backbone: hrnet_w16, reported HRNet-W32
 Reported, not measured here: arXiv:2109.09090, table 8 (COCO val2017, GT boxes (inferred))."""

GOLDEN_80 = """\
Measured on synth val (rendered pictures, not COCO), 312 persons
crops 64x48; GT boxes; flip test; plain crops; recipe quick; trained on
synth/train (2000 persons); seed 0
                  Params                                       | reported
Method  Backbone     (M) GMACs   AP AP50 AP75 AP(M) AP(L)   AR |       AP
----------------------------------------------------------------------------
one     hrnet_w16    7.6  0.13 30.0 60.0 25.0     -  32.0 36.0 |     29.7 bc
two (a) hrnet_w16    7.6  0.13    -    -    -     -     -    - |     58.4 bc
three   hrnet_w16    7.6  0.13  0.0 60.0 25.0     -  32.0 36.0 |        -

 a  two: failed, out of memory
 b  data: synth val, not COCO
 c  backbone: hrnet_w16, reported HRNet-W32
 Reported, not measured here: arXiv:2109.09090, table 8 (COCO val2017, GT boxes
 (inferred)).
 Too narrow for: backbone of the report."""

GOLDEN_MARKDOWN = """\
**Measured on synth val (rendered pictures, not COCO), 312 persons**  
crops 64x48; GT boxes; flip test; plain crops; recipe quick; trained on synth/train (2000 persons); seed 0  

| Method | Backbone | Params (M) | GMACs | AP | AP50 | AP75 | AP(M) | AP(L) | AR | *reported AP* | *reported backbone* |
| :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: | :-- |
| one | hrnet_w16 | 7.6 | 0.13 | 30.0 | 60.0 | 25.0 | - | 32.0 | 36.0 | *29.7* <sup>bc</sup> | *HRNet-W32* |
| two (a) | hrnet_w16 | 7.6 | 0.13 | - | - | - | - | - | - | *58.4* <sup>bc</sup> | *HRNet-W32* |
| three | hrnet_w16 | 7.6 | 0.13 | 0.0 | 60.0 | 25.0 | - | 32.0 | 36.0 | - |  |

- <sup>a</sup> two: failed, out of memory
- <sup>b</sup> data: synth val, not COCO
- <sup>c</sup> backbone: hrnet_w16, reported HRNet-W32

Reported, not measured here: arXiv:2109.09090, table 8 (COCO val2017, GT boxes (inferred)).  
"""  # noqa: W291 - two spaces break a line in Markdown


@pytest.mark.parametrize(("width", "golden"), [(100, GOLDEN_100), (80, GOLDEN_80)])
def test_console(width: int, golden: str):
    assert printed(rows(), width) == golden


def test_table_is_ascii_and_its_columns_do_not_move_between_terminal_and_pipe():
    text = printed(rows(), 100)
    assert text.isascii()
    assert printed(rows(), 100, force_terminal=True, color_system=None) == text


def test_no_color(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(rows(), 100, force_terminal=True)
    assert "\x1b[3" not in text.replace("\x1b[3m", "")  # italics may stay, colours may not


def test_reported_numbers_are_italic_and_dim_in_a_terminal():
    text = printed(rows(), 100, force_terminal=True, color_system="standard")
    line = next(line for line in text.splitlines() if "29.7" in line)
    measured, _, reported = line.partition("|")
    assert "\x1b[2;3m" in reported
    assert "\x1b[2;3m" not in measured


def test_markdown():
    assert compare_markdown(PROTOCOL, rows()) == GOLDEN_MARKDOWN


def test_no_report_no_group():
    text = printed([row("one", None, 0.3)], 80)
    assert "reported" not in text.lower()
    assert "|" not in text


def test_several_sizes_and_seeds_have_columns_of_their_own():
    given = [row("one", "HRNet", 0.3, res=res, seed=seed) for res in ("64x48", "128x96") for seed in (0, 1)]
    for width in (80, 120):
        text = printed(given, width)
        assert "crops 64x48, 128x96;" in text
        assert "seeds 0, 1" in " ".join(text.split())
        assert all(len(line) <= width for line in text.splitlines())
        assert any("Size" in line and "Seed" in line for line in text.splitlines())
        assert text.count("29.7") == 4
    assert "Too narrow for: backbone of the report, Params (M), GMACs." in printed(given, 79)


def test_interval_and_difference():
    reported = row("one", "HRNet", 0.3)["reported"] | {"delta_ap": 0.003, "protocol_differs": []}
    given = [row("one", None, 0.3, ci95={"ap": [0.27, 0.34]}, reported=reported), row("two", None, 0.3)]
    text = printed(given, 120, {"dataset": "coco", "split": "val"})
    assert "27.0..34.0" in text
    assert "+0.3" in text


def test_rows_on_other_persons_are_marked():
    text = printed([row("one", None, 0.3), row("two", None, 0.3, n_persons=100)], 80)
    assert "one (a)" in text
    assert "two (b)" in text
    assert "scored on 312 persons" in text
    assert "scored on 100 persons" in text


def test_part_of_coco_is_not_called_coco():
    text = printed([row("one", None, 0.3, n_persons=100)], 80, {"dataset": "coco", "split": "val"})
    assert text.startswith("Measured on 100 persons of COCO val2017, not all 6352\n")


def test_degraded_pixels_are_in_the_title():
    protocol = {
        "dataset": "small",
        "split": "val",
        "lr_preset": "none",
        "degradation": {"preset": "antialias", "scale": 4},
    }
    assert "pixels: images antialias scale 4" in printed([row("one", None, 0.3)], 80, protocol)


def test_markdown_escapes():
    text = compare_markdown({}, [row("a|b", None, None, status="failed", reason="<x>\ny | z", metrics=None)])
    assert "a\\|b (a)" in text
    assert "- <sup>a</sup> a\\|b: failed, &lt;x>" in text
    assert "\ny" not in text


def test_percent_and_letters():
    assert [percent(x) for x in (None, -1, 0, 0.2974, 1)] == ["-", "-", "0.0", "29.7", "100.0"]
    assert [letters(i) for i in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]
