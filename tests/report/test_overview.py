"""The page of a results folder: rebuilt from its records, and nothing side by side that must not be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lrbench.report.overview import overview

RESULTS = Path(__file__).parents[2] / "results"


def test_the_committed_page_is_what_the_records_say():
    if not (RESULTS / "README.md").is_file():
        pytest.skip("this checkout has no results")
    assert (RESULTS / "README.md").read_text() == overview(RESULTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two records: hrnet, and the mean pose."""
    if not RESULTS.is_dir():
        pytest.skip("this checkout has no results")
    for method in ("hrnet", "meanpose"):
        source = RESULTS / "synth" / "64x48" / method
        path = min(p for p in source.glob("*.json") if "predictions" not in p.name)
        (tmp_path / "synth" / "64x48" / method).mkdir(parents=True)
        shutil.copy(path, tmp_path / "synth" / "64x48" / method / path.name)
    return tmp_path


def changed(folder: Path, method: str, **protocol: object) -> None:
    """Add a copy of a record with another key and protocol."""
    path = next((folder / "synth" / "64x48" / method).glob("*.json"))
    record = json.loads(path.read_text())
    record["key"] = "0" * 16
    record["protocol"] |= protocol
    (path.parent / f"{record['key']}.json").write_text(json.dumps(record))


def test_the_untrained_stand_beside_the_trained(folder: Path):
    page = overview(folder)
    assert page.count("## ") == 1
    assert "| hrnet | hrnet_w16 | 27.2 | 32.1 | 1.07 | 0.042 | - |" in page
    assert "| meanpose | - | 0.0 |" in page


def test_another_protocol_is_another_table(folder: Path):
    changed(folder, "hrnet", flip=False)
    page = overview(folder)
    assert page.count("## ") == 2
    assert "no flip test" in page


def test_another_rescoring_is_marked(folder: Path):
    changed(folder, "hrnet", rescoring=0.02)
    page = overview(folder)
    assert sum(line.startswith("| hrnet") for line in page.splitlines()) == 2, "not averaged"
    assert "| hrnet <sup>a</sup> |" in page
    assert "person scores: keypoints above 0.02 count, not 0.2" in page
