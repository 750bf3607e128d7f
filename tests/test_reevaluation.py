"""Kept predictions scored again: records gain what they lacked, and nothing else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import tiny
import tiny_mpii

from lrbench.datasets.images import DataError
from lrbench.predictions import evaluate_predictions
from lrbench.records import Record, matches_path, predictions_path, read_record, record_path, write_record
from lrbench.reevaluation import score_again
from lrbench.statistics import Matches


@pytest.fixture
def kept(tiny_data: Path, tmp_path: Path) -> tuple[Path, Record]:
    """A record of today, and the folder with it as it was written before there were intervals."""
    file, results = tmp_path / "tool.json", tmp_path / "results"
    file.write_text(json.dumps(tiny.guesses(tiny.read(tiny_data), 3)))
    record = evaluate_predictions(file, str(tiny_data), "val", results)
    old = record.model_copy(update={"ci95": {}, "bootstrap": None, "diagnosis": None})
    write_record(results, old)
    matches_path(results, record).unlink()
    return results, record


def test_a_record_gains_what_it_lacked(tiny_data: Path, kept: tuple[Path, Record]):
    results, record = kept
    assert score_again(results, str(tiny_data), "val") == [record_path(results, record)]
    again = read_record(record_path(results, record))
    assert again.provenance.scored_again
    assert again.model_copy(update={"provenance": record.provenance}) == record
    assert Matches.load(matches_path(results, record)).metrics()["ap"] == pytest.approx(record.metrics.ap, abs=1e-12)


def test_what_needs_the_crops_is_kept(tiny_data: Path, kept: tuple[Path, Record]):
    results, record = kept
    diagnosis = record.diagnosis.model_copy(update={"crop_error": 7})
    write_record(results, record.model_copy(update={"diagnosis": diagnosis}))
    score_again(results, str(tiny_data), "val")
    assert read_record(record_path(results, record)).diagnosis.crop_error == 7


def test_a_number_that_moved_is_refused_and_the_record_stays(tiny_data: Path, kept: tuple[Path, Record]):
    results, record = kept
    path = record_path(results, record)
    wrong = record.model_copy(update={"metrics": record.metrics.model_copy(update={"ap": 0.9})})
    write_record(results, wrong)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"scored again it differs \(ap 0\.9 -> "):
        score_again(results, str(tiny_data), "val")
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_predictions_are_refused(tiny_data: Path, kept: tuple[Path, Record], damage: str):
    results, record = kept
    path = predictions_path(results, record)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"^predictions .*: missing or damaged"):
        score_again(results, str(tiny_data), "val")


def test_records_of_other_data_are_left_alone(tiny_data: Path, kept: tuple[Path, Record]):
    results, record = kept
    other = record.protocol.model_copy(update={"data_hash": "other"})
    write_record(results, record.model_copy(update={"protocol": other}))
    with pytest.raises(DataError, match=r"no record of .*/val; 1 are of other data of this name"):
        score_again(results, str(tiny_data), "val")
    assert gzip.decompress(predictions_path(results, record).read_bytes())


def test_further_metrics_may_not_move_either(tmp_path: Path):
    """PCKh has none of COCO's ten numbers."""
    root, file, results = tiny_mpii.write(tmp_path / "mpii"), tmp_path / "tool.json", tmp_path / "results"
    file.write_text(json.dumps([{"image_id": 1, "category_id": 1, "person": 1, "keypoints": [9] * 48, "score": 1}]))
    record = evaluate_predictions(file, str(root), "val", results)
    assert record.further["pckh50"] == 0
    write_record(results, record.model_copy(update={"further": {"pckh50": 0}}))
    assert score_again(results, str(root), "val") == [record_path(results, record)]
    assert read_record(record_path(results, record)).further == record.further
    write_record(results, record.model_copy(update={"further": {**record.further, "pckh50": 0.25}}))
    with pytest.raises(DataError, match=r"scored again it differs \(pckh50 0\.25 -> 0\.0\)"):
        score_again(results, str(root), "val")
