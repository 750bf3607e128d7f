"""The table of an audit."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from lrbench.report.audits import audit_table

METRICS = {"ap": 0.3, "ap50": 0.6, "ap75": 0.25, "ap_m": None, "ap_l": 0.32, "ar": 0.3605}


def row(choice: str, value: str, ap: float | None = None, reason: str = "", **gain: Any) -> dict[str, Any]:
    return {
        "choice": choice,
        "value": value,
        "declared": False,
        "metrics": None if ap is None else {**METRICS, "ap": ap},
        "difference": None,
        "ci95": None,
        "resolved": None,
        "reason": reason,
    } | gain


def other(choice: str, value: str, difference: float, low: float, high: float) -> dict[str, Any]:
    resolved = low > 0 or high < 0
    return row(choice, value, 0.3 + difference, difference=difference, ci95=[low, high], resolved=resolved)


DOCUMENT: dict[str, Any] = {
    "key": "0123456789abcdef",
    "call": {"name": "one", "backbone": "hrnet_w16", "sr": "none", "res": "64x48"},
    "protocol": {"dataset": "tiny", "split": "val"},
    "counts": {"images": 3, "persons": 9},
    "bootstrap": {"resamples": 1000, "seed": 0},
    "weights_sha256": "f" * 64,
    "rows": [
        row("flip", "flip, shifted by 1", 0.3, declared=True),
        other("flip", "none", 0.0123, 0.004, 0.021),
        other("flip", "flip", -0.062, -0.08, -0.041),
        row("decoder", "CropCoordinates", 0.3, declared=True),
        row("decoder", "argmax", reason="does not apply: no map"),
        row("decoder", "quarter", reason="does not apply: no map"),
        row("scores", "rescored, NMS", 0.3, declared=True),
        other("scores", "box scores, NMS", -0.0004, -0.002, 0.001),
        row("boxes", "gt", 0.3, declared=True),
        row("boxes", "detections", reason="no detection file given: --boxes FILE"),
    ],
    "warnings": ['flip test: declared "flip, shifted by 1" is not the best here: "none" is +1.2 AP (resolved)'],
}

GOLDEN_100 = """\
Audit of one hrnet_w16 64x48 on tiny val, 9 persons
record 0123456789abcdef, weights ffffffffffff
Choice         Value                   AP  AP50  AP75  AP(M)  AP(L)    AR  diff       95% CI
--------------------------------------------------------------------------------------------
flip test      flip, shifted by 1 *  30.0  60.0  25.0      -   32.0  36.0     -            -
               none                  31.2  60.0  25.0      -   32.0  36.0  +1.2  +0.4..+2.1!
               flip                  23.8  60.0  25.0      -   32.0  36.0  -6.2  -8.0..-4.1!

decoder        CropCoordinates *     30.0  60.0  25.0      -   32.0  36.0     -            -
               argmax                   -     -     -      -      -     -     -            -
               quarter                  -     -     -      -      -     -     -            -

person scores  rescored, NMS *       30.0  60.0  25.0      -   32.0  36.0     -            -
               box scores, NMS       30.0  60.0  25.0      -   32.0  36.0  -0.0   -0.2..+0.1

boxes          gt *                  30.0  60.0  25.0      -   32.0  36.0     -            -
               detections               -     -     -      -      -     -     -            -

 * as declared. diff: AP minus that of the declared value, its 95 % interval over images by paired
 bootstrap, ! where that excludes 0.
 argmax, quarter: does not apply: no map.
 detections: no detection file given: --boxes FILE.
 Warning: flip test: declared "flip, shifted by 1" is not the best here: "none" is +1.2 AP
 (resolved)."""

GOLDEN_80 = """\
Audit of one hrnet_w16 64x48 on tiny val, 9 persons
record 0123456789abcdef, weights ffffffffffff
Choice         Value                   AP  AP50  AP75    AR  diff       95% CI
------------------------------------------------------------------------------
flip test      flip, shifted by 1 *  30.0  60.0  25.0  36.0     -            -
               none                  31.2  60.0  25.0  36.0  +1.2  +0.4..+2.1!
               flip                  23.8  60.0  25.0  36.0  -6.2  -8.0..-4.1!

decoder        CropCoordinates *     30.0  60.0  25.0  36.0     -            -
               argmax                   -     -     -     -     -            -
               quarter                  -     -     -     -     -            -

person scores  rescored, NMS *       30.0  60.0  25.0  36.0     -            -
               box scores, NMS       30.0  60.0  25.0  36.0  -0.0   -0.2..+0.1

boxes          gt *                  30.0  60.0  25.0  36.0     -            -
               detections               -     -     -     -     -            -

 * as declared. diff: AP minus that of the declared value, its 95 % interval
 over images by paired bootstrap, ! where that excludes 0.
 argmax, quarter: does not apply: no map.
 detections: no detection file given: --boxes FILE.
 Too narrow for: AP(M), AP(L).
 Warning: flip test: declared "flip, shifted by 1" is not the best here: "none"
 is +1.2 AP (resolved)."""


def printed(document: dict[str, Any], width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False).print(audit_table(document))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_table():
    assert printed(DOCUMENT, 100) == GOLDEN_100


def test_narrow_table_leaves_columns_out_and_says_so():
    assert printed(DOCUMENT, 80) == GOLDEN_80
    assert "Too narrow for: AP(M), AP(L), AR, AP75, AP50." in printed(DOCUMENT, 60)


def test_upscaler_is_named():
    document = DOCUMENT | {"call": DOCUMENT["call"] | {"sr": "bicubic x4", "backbone": ""}}
    assert printed(document, 100).startswith("Audit of one bicubic x4 64x48 on tiny val, 9 persons\n")


def test_differences_that_are_not_defined_are_no_numbers():
    rows = [row("flip", "flip", None, declared=True), row("flip", "none")]
    lines = printed(DOCUMENT | {"rows": rows, "warnings": []}, 100).splitlines()
    (line,) = (line for line in lines if " none " in line)
    assert line.split() == ["none", *"--------"]
