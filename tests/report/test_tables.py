from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lrbench.geometry import Size
from lrbench.report.reported import comparison, find
from lrbench.report.tables import compare_markdown, compare_table, letters, percent, upscaling_in_words

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
Method     (M) GMACs   AP AP50 AP75 AP(M) AP(L)   AR |       AP    backbone
----------------------------------------------------------------------------
one        7.6  0.13 30.0 60.0 25.0     -  32.0 36.0 |     29.7 bc HRNet-W32
two (a)    7.6  0.13    -    -    -     -     -    - |     58.4 bc HRNet-W32
three      7.6  0.13  0.0 60.0 25.0     -  32.0 36.0 |        -

 a  two: failed, out of memory
 b  data: synth val, not COCO
 c  backbone: hrnet_w16, reported HRNet-W32
 Reported, not measured here: arXiv:2109.09090, table 8 (COCO val2017, GT boxes
 (inferred)).
 Too narrow for: Backbone (hrnet_w16 in every row)."""

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
    told = "Too narrow for: Backbone (hrnet_w16 in every row), backbone of the report, Params (M)."
    assert told in " ".join(printed(given, 76).split())


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


UPSCALER = {
    "epochs": 8,
    "persons": 900,
    "data": "synth/train",
    "pairs": "bicubic",
    "features": "",
    "quality": {"psnr": 27.25, "persons": 48, "bicubic": {"psnr": 26.5}},
}


def behind(sr: str, pose: str, **changes: Any) -> dict[str, Any]:
    facts = UPSCALER if sr.startswith("spsr") else None
    given = {"lr_preset": "paper", "align": "corner", "upscaler": facts, "macs": 12_000_000_000, **changes}
    return row("udp", None, 0.4, sr=sr, pose=pose, **given)


def verdict() -> list[dict[str, Any]]:
    """A table with control rows, as wide as it gets."""
    report = row("one", "HRNet", 0.3)["reported"]
    fronts = [("C", "spsr_tiny x4", "clean"), ("B", "bicubic x4", "clean"), ("D", "bicubic x4", "up")]
    first = [row("udp", None, 0.3, row="A", pose="", lr_preset="paper", align="corner", reported=report)]
    first += [behind(sr, pose, row=letter) for letter, sr, pose in fronts]
    first += [behind("spsr_tiny x4", "sr", row="E")]
    again = [given | {"row": "F", "lr_preset": "antialias"} for given in first]
    ceiling = row("udp", None, 0.6, row="H", pose="", lr_preset="paper", align="corner", res="256x192")
    return [given | {"ci95": {"ap": [0.25, 0.35]}} for given in [*first, *again, ceiling]]


CHOICES = PROTOCOL | {"sr_boundary": "u8", "sr_map": "composed"}

GOLDEN_VERDICT = """\
Measured on synth val (rendered pictures, not COCO), 312 persons
crops 64x48, 256x192; GT boxes; flip test; recipe quick; trained on synth/train (2000 persons); seed 0
                                                Params                    AP                            | reported
Row Method Size    Pixels    Upscaler     Pose     (M) GMACs   AP     95% CI AP50 AP75 AP(M) AP(L)   AR |       AP
---------------------------------------------------------------------------------------------------------------------
A   udp    64x48   paper     none                  7.6  0.13 30.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |     29.7 ab

C   udp    64x48   paper     spsr_tiny x4 clean    7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

B   udp    64x48   paper     bicubic x4   clean    7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

D   udp    64x48   paper     bicubic x4   up       7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

E   udp    64x48   paper     spsr_tiny x4 sr       7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

F   udp    64x48   antialias none                  7.6  0.13 30.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |     29.7 ab
F   udp    64x48   antialias spsr_tiny x4 clean    7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -
F   udp    64x48   antialias bicubic x4   clean    7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -
F   udp    64x48   antialias bicubic x4   up       7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -
F   udp    64x48   antialias spsr_tiny x4 sr       7.6 12.00 40.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

H   udp    256x192 paper     none                  7.6  0.13 60.0 25.0..35.0 60.0 25.0     -  32.0 36.0 |        -

 a  data: synth val, not COCO
 b  backbone: hrnet_w16, reported HRNet-W32
 95% CI: over images (1,000 resamples), so for other pictures, not another training.
 Reported, not measured here: arXiv:2109.09090, table 8 (COCO val2017, GT boxes (inferred)).
 Row A: the method on the small crop.
 Row B: enlarged by bicubic interpolation, the network trained on clean crops; what enlarging alone does.
 Row C: super-resolved, the network trained on clean crops; as published.
 Row D: bicubic, the network trained on such crops; how far plain retraining goes.
 Row E: super-resolved, the network trained on what the upscaler makes; the fair baseline.
 Row F: all of these on other pixels; whether the verdict is about aliasing.
 Row H: the clean network on clean crops of the enlarged size; the ceiling.
 Pixels: cut once per person by the rule corner, and read by every row of the size; paper: bilinear without a filter,
 aliased, as published; antialias: bicubic with a widened kernel (MATLAB imresize).
 Pose clean: trained on crops of the enlarged size, cut from the photograph; up: trained on small crops enlarged by
 bicubic interpolation; sr: trained on what this upscaler makes.
 8-bit pixels between upscaler and network; coordinates mapped back exactly; Params and GMACs are those of upscaler and
 pose network together.
 spsr_tiny x4: 8 epochs of 900 persons of synth/train, bicubic pairs; PSNR 27.25 dB, +0.75 to bicubic, on 48 others.
 Too narrow for: Backbone (hrnet_w16 in every row), backbone of the report."""


def test_a_table_with_controls():
    assert printed(verdict(), 120, CHOICES) == GOLDEN_VERDICT


@pytest.mark.parametrize("width", [72, 80, 100, 120, 160])
def test_a_table_with_controls_fits(width: int):
    """The numbers that decide stay: AP, its interval, and what is reported."""
    lines = printed(verdict(), width, CHOICES).splitlines()
    assert all(len(line) <= width for line in lines)
    heading = next(line for line in lines if line.startswith("Row "))
    for word in ("Row", "Method", "Size", "Pixels", "Upscaler", "Pose", "AP"):
        assert word in heading.split()
    assert ("95% CI" in heading) == (width >= 80)
    assert "|" in heading
    assert ("AP50" in heading) == (width >= 100)
    assert ("hrnet_w16" in lines[5]) == (width >= 160)


def test_backbones_that_differ_stay():
    given = [*verdict(), verdict()[0] | {"backbone": "resnet_18"}]
    text = printed(given, 80, CHOICES)
    assert "resnet_18" in text
    assert "Backbone (" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_row_with_an_upscaler_in_markdown():
    lines = compare_markdown(CHOICES, verdict()).splitlines()
    heading = next(line for line in lines if line.startswith("| Row "))
    assert heading.startswith("| Row | Method | Backbone | Size | Pixels | Upscaler | Pose | Params (M) | GMACs | AP |")
    assert next(line for line in lines if line.startswith("| E ")).startswith(
        "| E | udp | hrnet_w16 | 64x48 | paper | spsr_tiny x4 | sr | 7.6 | 12.00 | 40.0 |"
    )
    assert "Row H: the clean network on clean crops of the enlarged size; the ceiling.  " in lines


def test_without_an_upscaler_nothing_is_said_of_upscalers():
    plain = [row("one", None, 0.3, row="", pose="", lr_preset="paper", align="biased")]
    text = printed(plain, 120, CHOICES)
    for word in ("Row", "Pixels", "Pose", "Upscaler", "upscaler", "8-bit"):
        assert word not in text
    assert upscaling_in_words(CHOICES, plain) == []


def test_other_choices_are_told():
    given = [behind("bicubic x4", "mix", align="biased"), behind("bicubic x4", "joint", align="corner")]
    words = upscaling_in_words({"sr_boundary": "float", "sr_map": "naive"}, given)
    assert words == [
        "Pixels: cut by each method's own rule (biased, corner), so not all rows read the same; "
        "paper: bilinear without a filter, aliased, as published.",
        "Pose mix: trained on a third of each; joint: trained together with the upscaler, by pose and picture.",
        "Pixels between upscaler and network not rounded; coordinates mapped back as if crops were native; "
        "Params and GMACs are those of upscaler and pose network together.",
    ]
    assert upscaling_in_words({}, given)[-1] == "Params and GMACs are those of upscaler and pose network together."


def test_each_training_of_an_upscaler_is_told_once():
    other = UPSCALER | {"epochs": 1, "features": "ab", "quality": None}
    fronts = [UPSCALER, None, UPSCALER, other, {"further": "joint", "quality": None}, UPSCALER | {"further": "tdp"}]
    given = [behind("spsr x4", "sr", upscaler=facts) for facts in fronts]
    assert upscaling_in_words({}, given)[3:] == [
        "spsr x4: 8 epochs of 900 persons of synth/train, bicubic pairs; "
        "PSNR 27.25 dB, +0.75 to bicubic, on 48 others.",
        "spsr x4: 1 epoch of 900 persons of synth/train, bicubic pairs, perceptual loss.",
        "spsr x4: trained with each pose network (joint).",
        "spsr x4: 8 epochs of 900 persons of synth/train, bicubic pairs; trained further with each pose network (tdp); "
        "PSNR 27.25 dB, +0.75 to bicubic, on 48 others.",
    ]


def test_markdown_escapes():
    text = compare_markdown({}, [row("a|b", None, None, status="failed", reason="<x>\ny | z", metrics=None)])
    assert "a\\|b (a)" in text
    assert "- <sup>a</sup> a\\|b: failed, &lt;x>" in text
    assert "\ny" not in text


def test_percent_and_letters():
    assert [percent(x) for x in (None, -1, 0, 0.2974, 1)] == ["-", "-", "0.0", "29.7", "100.0"]
    assert [letters(i) for i in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]
