"""Records: there and back, refusals, keys, atomic files, superseding."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

import lrbench
from lrbench import records
from lrbench.records import (
    METRICS,
    Cost,
    Counts,
    MethodCall,
    Metrics,
    Protocol,
    Provenance,
    Record,
    Training,
    key_of,
    newest,
    read_record,
    read_records,
    write_atomic,
    write_record,
)

RESULTS = Path(lrbench.__file__).parents[1] / "results"


def record(key: str = "0123456789abcdef", utc: str = "2020-01-01T00:00:00+00:00", **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "key": key,
        "call": MethodCall(name="cal", backbone="hrnet_w32", sr="none", res="64x48", settings={"sigma": 0.3}),
        "training": Training(
            recipe="quick", data="tiny/train", data_hash="ab", persons=12, epochs=1, batch=4, start="none", numbers={}
        ),
        "protocol": Protocol(
            dataset="tiny", split="val", data_hash="cd", boxes="gt", flip=True, align="corner", decoder={"type": "x"},
            degradation={}, referee="pycocotools 2.0.8",
        ),
        "metrics": Metrics(ap=0.1 + 0.2, ap50=1 / 3, ap_l=None),
        "keypoint_ap": {"nose": 0.5, "left_eye": None},
        "ci95": {"ap": (0.25, 0.35)},
        "counts": Counts(images=3, persons=9, crops=9, predictions=8),
        "cost": Cost(params=10, macs=20, eval_seconds=0.5),
        "provenance": Provenance(
            lrbench="0", commit="", code_hash="ef", versions={}, weights_sha256="12", seed=0, device="cpu",
            precision="32-true", threads=1, utc=utc,
        ),
        "settings": {"codec": {"sigma": 0.3}},
    }  # fmt: skip
    return Record(**(fields | changes))


def test_there_and_back(tmp_path: Path):
    original = record()
    predictions = [{"image_id": 1, "category_id": 1, "keypoints": [0.1] * 51, "score": 0.1 + 0.2}]
    path = write_record(tmp_path, original, predictions)
    assert path == tmp_path / "tiny" / "64x48" / "cal" / "0123456789abcdef.json"
    assert read_record(path) == original
    assert read_records(tmp_path) == [original]
    packed = path.with_name("0123456789abcdef.predictions.json.gz")
    assert json.loads(gzip.decompress(packed.read_bytes())) == predictions
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, packed.name]


def test_json_has_the_documented_fields():
    data = json.loads(json.dumps(record().to_json()))
    assert list(data)[:3] == ["schema", "key", "status"]
    assert set(data) >= {"call", "settings", "protocol", "metrics", "ci95", "counts", "cost", "provenance"}
    assert data["schema"] == records.SCHEMA
    assert list(data["metrics"]) == list(METRICS)
    assert data["metrics"]["ap_l"] is None
    assert data["ci95"]["ap"] == [0.25, 0.35]


def test_records_from_before_upscalers_were_told(tmp_path: Path):
    """Fields that came later are optional, and say what was true then."""
    old = record().to_json()
    del old["call"]["pose"], old["upscaler"], old["training"]["degradation"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    again = read_record(path)
    assert (again.call.pose, again.upscaler) == ("", None)
    assert again.training is not None
    assert again.training.degradation == {}
    assert again == record()


@pytest.mark.skipif(not RESULTS.is_dir(), reason="only a checkout has results")
def test_committed_records_read():
    kept = read_records(RESULTS)
    assert kept
    for one in kept:
        assert (one.call.sr == "none") == (one.call.pose == "")


def test_result_file_has_no_size(tmp_path: Path):
    path = write_record(
        tmp_path, record(call=MethodCall(name="predictions", backbone="", sr="none", res="", settings={}))
    )
    assert path == tmp_path / "tiny" / "any" / "predictions" / "0123456789abcdef.json"
    assert len(read_records(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=records.SCHEMA + 1), f"schema {records.SCHEMA + 1}, expected {records.SCHEMA}"),
        (lambda d: d.pop("schema"), "schema None"),
        (lambda d: d.pop("metrics"), "metrics: Field required"),
        (lambda d: d.update(surprise=1), "surprise: Extra inputs"),
        (lambda d: d["protocol"].update(flip="perhaps"), "protocol.flip"),
        (lambda d: d.update(status="half"), "status"),
        (lambda d: d["metrics"].update(ap="high"), "metrics.ap"),
    ],
)
def test_refusals_name_file_and_field(tmp_path: Path, change, words: str):
    path = write_record(tmp_path, record())
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    for read in (lambda: read_record(path), lambda: read_records(tmp_path)):
        with pytest.raises(ValueError, match=rf"record .*0123456789abcdef\.json: .*{words}"):
            read()


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '"x"', "\xff"])
def test_no_record(tmp_path: Path, content: str):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(ValueError, match=r"record .*a\.json"):
        read_record(path)


def test_records_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        record().key = "other"


def test_key_changes_with_every_part():
    parts: list[Any] = [{"a": 1, "b": [0.3]}, "code", {"flip": True}, "sha", 0]
    keys = {key_of(*parts)}
    for i, other in enumerate([{"a": 1, "b": [0.30000000000000004]}, "cod", {"flip": 1.5}, "shb", 1]):
        keys.add(key_of(*[*parts[:i], other, *parts[i + 1 :]]))
    keys |= {key_of(*parts[:-1]), key_of(*parts, None), key_of(parts)}
    assert len(keys) == 9
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


class TestWriteAtomic:
    def test_replaces(self, tmp_path: Path):
        path = tmp_path / "a"
        write_atomic(path, b"old")
        write_atomic(path, b"new")
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
    def test_failure_keeps_the_old_file_and_nothing_else(self, tmp_path: Path, monkeypatch, error: BaseException):
        path = tmp_path / "a"
        write_atomic(path, b"old")

        def fail(_: int) -> None:
            raise error

        monkeypatch.setattr(records.os, "fsync", fail)
        with pytest.raises(type(error)):
            write_atomic(path, b"new" * 1000)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_target_is_a_folder(self, tmp_path: Path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        with pytest.raises(OSError, match="a"):
            write_atomic(tmp_path / "a", b"x")
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_no_folder(self, tmp_path: Path):
        with pytest.raises(OSError, match="No such file"):
            write_atomic(tmp_path / "none" / "a", b"x")
        assert list(tmp_path.iterdir()) == []


def test_newest_supersedes():
    old, new = record(utc="2020-01-01T00:00:00+00:00"), record(utc="2021-01-01T00:00:00+00:00")
    other = record(key="f" * 16, utc="2019-01-01T00:00:00+00:00")
    for order in ([old, new, other], [new, other, old]):
        assert sorted(newest(order), key=lambda r: r.key) == [new, other]


def test_metrics_are_plain_numbers():
    values = [v for v in record().metrics.model_dump().values() if v is not None]
    assert all(isinstance(v, float) and math.isfinite(v) for v in values)


@pytest.mark.parametrize("part", ["key", "protocol.dataset", "call.name", "call.res"])
@pytest.mark.parametrize("text", ["../elsewhere", "/tmp/elsewhere", "..", "a\\b"])
def test_a_record_does_not_lead_out_of_its_folder(tmp_path: Path, part: str, text: str):
    """Commands that score again write where a record says it lies."""
    path = write_record(tmp_path, record())
    data = json.loads(path.read_text())
    *parents, last = part.split(".")
    (data[parents[0]] if parents else data)[last] = text
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=f"{part}: .*may not lead to another folder") as caught:
        read_record(path)
    assert str(path) in str(caught.value)
