"""The contact sheet: every preset, every size, one person."""

from __future__ import annotations

import cv2
import pytest

from lrbench.datasets.coco import read
from lrbench.report.preview import preview


def test_sheet(tiny_data, tmp_path):
    path = preview(read(tiny_data, "val"), tmp_path / "new" / "sheet.png", severity=1)
    height, width = cv2.imread(str(path)).shape[:2]
    assert width > height > 500


def test_unknown_person(tiny_data, tmp_path):
    with pytest.raises(ValueError, match="person 12345: no labelled person of this id"):
        preview(read(tiny_data, "val"), tmp_path / "sheet.png", person=12345)
    assert not (tmp_path / "sheet.png").exists()
