"""Commands that say how far a number can be trusted, and those that tell others about it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_mpii
from test_cli import DATA, QUICK, USAGE, check_row, refused

from lrbench.records import METRICS
from lrbench.statistics import Matches


@pytest.fixture
def results(tiny_data: Path) -> Path:
    """A COCO keypoint result of another tool."""
    path = Path("tool.json")
    path.write_text(json.dumps(tiny.guesses(tiny.read(tiny_data), 3)))
    return path


def done(result: Any) -> Any:
    """The document that a command printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestIntervals:
    def test_a_record_has_them(self, cli, tiny_data: Path, trained: Path):
        record = done(cli("eval", "meanpose", "--data", tiny_data, *QUICK, "--runs", trained, "-q", "--json"))
        defined = {name for name in METRICS if record["metrics"][name] is not None}
        assert set(record["ci95"]) == defined
        for name in defined:
            low, high = record["ci95"][name]
            assert 0 <= low <= record["metrics"][name] <= high <= 1
        assert record["bootstrap"] == {"resamples": 1000, "seed": 0}
        assert record["cost"]["latency_ms"] > 0
        assert record["diagnosis"]["pck"]
        (path,) = Path("results").rglob("*.matches.safetensors")
        assert Matches.load(path).metrics()["ap"] == pytest.approx(record["metrics"]["ap"], abs=1e-12)

    def test_seeds_and_differences(self, cli, tiny_data: Path, results: Path):
        words = ("compare", "meanpose", "hrnet", "--data", tiny_data, *QUICK, "--seed", 0, "--seed", 1, "-q")
        outcome = done(cli(*words, "--predictions", f"better={results}", "--json"))
        assert len(outcome["rows"]) == 5
        for row in outcome["rows"][:-1]:
            check_row(row)
        last = outcome["rows"][-1]
        assert (last["method"], last["status"], last["n_persons"]) == ("better", "done", 9)
        mean, network, other = outcome["ranked"]
        assert [m["seeds"] for m in (mean, network, other)] == [[0, 1], [0, 1], [None]]
        assert other["difference"] is None
        assert mean["difference"]["to"] == network["difference"]["to"] == [4]
        assert mean["difference"]["value"] == pytest.approx(
            mean["metrics"]["ap"]["mean"] - outcome["rows"][-1]["metrics"]["ap"]
        )
        text = cli(*words, "--predictions", f"better={results}").stdout
        assert "AP by seed: meanpose" in text
        assert "to best: AP minus that of the best row" in " ".join(text.split())

    @pytest.mark.parametrize("damage", ["damaged", "gone"])
    def test_a_row_whose_matches_are_lost_keeps_its_numbers(self, cli, tiny_data: Path, results: Path, damage: str):
        words = ("compare", "meanpose", "--data", tiny_data, *QUICK, "--predictions", results, "-q", "--json")
        before = done(cli(*words))
        (path,) = Path("results").rglob("meanpose/*.matches.safetensors")
        path.write_bytes(b"no matches") if damage == "damaged" else path.unlink()
        after = done(cli(*words))
        assert after["rows"][0]["metrics"] == before["rows"][0]["metrics"]
        assert [m["rows"] for m in after["ranked"]] == [[1]]
        assert [note for note in after["rows"][0]["notes"] if "damaged" in note] or damage == "gone"
        assert cli(*words[:-1]).exit_code == 0

    def test_kept_predictions_are_scored_again(self, cli, tiny_data: Path, results: Path):
        done(cli("eval", "--predictions", results, "--data", tiny_data, "-q", "--json"))
        (path,) = Path("results").rglob("*.matches.safetensors")
        before = path.read_bytes()
        path.unlink()
        (written,) = done(cli("eval", "--again", "--data", tiny_data, "-q", "--json"))["records"]
        assert json.loads(Path(written).read_text())["provenance"]["scored_again"]
        assert path.read_bytes() == before
        refused(cli("eval", "--again", "--data", tiny_data, "--results", "none", "-q"), DATA, "no record of")

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--again", "hrnet"], ["one of"]),
            (["--again", "--audit"], ["--audit", "METHOD"]),
            (["hrnet", "--name", "x"], ["--name x", "--predictions"]),
            (["--again", "--export-testdev", "out"], ["--export-testdev"]),
            (["hrnet", "--audit", "--export-testdev", "out"], ["--audit", "--export-testdev"]),
        ],
    )
    def test_options_that_do_not_go_together(self, cli, tiny_data: Path, words: list[str], expected: list[str]):
        refused(cli("eval", *words, "--data", tiny_data, "-q"), USAGE, *expected)


class TestAudit:
    def test_every_choice_is_a_row(self, cli, tiny_data: Path, trained: Path):
        words = ("eval", "hrnet", "--data", tiny_data, *QUICK, "--runs", trained, "--audit", "-q")
        record = done(cli(*words, "--json"))
        rows = record["audit"]["rows"]
        assert {row["choice"] for row in rows} == {"flip", "decoder", "scores", "boxes"}
        for row in rows:
            assert not row["declared"] or row["metrics"] == record["metrics"]
        text = cli(*words).stdout
        assert "flip, shifted by 1 *" in text
        assert "taylor" in text

    def test_data_without_ap_are_refused_before_they_are_scored(self, cli, tmp_path: Path):
        data = tiny_mpii.write(tmp_path / "mpii")
        words = ("eval", "meanpose", "--data", data, "--split", "valid", *QUICK)
        cli("train", *words[1:], "-q")
        refused(cli(*words, "--audit", "-q"), USAGE, "mpii is scored by pckh, not by AP")
        assert not list(Path("results").rglob("*.json"))


class TestBeforeTraining:
    """What cannot be used shows before hours are spent."""

    @pytest.mark.parametrize(
        ("words", "code", "expected"),
        [
            (["--boxes", "no.json"], DATA, "--boxes no.json: no such file"),
            (["--predictions", "damaged.json"], DATA, "damaged.json: not valid JSON"),
            ([], USAGE, "unknown referee 'another'"),
        ],
    )
    def test_nothing_is_trained(self, cli, tiny_data: Path, monkeypatch, words: list[str], code: int, expected: str):
        Path("damaged.json").write_text("[")
        if not words:
            monkeypatch.setenv("LRBENCH_REFEREE", "another")
        refused(cli("compare", "hrnet", "--data", tiny_data, *QUICK, *words, "-q"), code, expected)
        assert not list(Path("runs").rglob("*.safetensors"))

    def test_boxes_where_each_annotated_person_counts(self, cli, tmp_path: Path):
        data = tiny_mpii.write(tmp_path / "mpii")
        Path("boxes.json").write_text("[]")
        words = ("compare", "meanpose", "--data", data, "--split", "valid", *QUICK, "--boxes", "boxes.json", "-q")
        refused(cli(*words), USAGE, "PCKh asks for the joints of each annotated person")
        assert not list(Path("runs").rglob("*.safetensors"))


class TestOtherTools:
    def test_a_name_for_tables(self, cli, tiny_data: Path, results: Path):
        record = done(cli("eval", "--predictions", results, "--name", "a tool", "--data", tiny_data, "-q", "--json"))
        assert record["call"]["settings"] == {"file": "tool.json", "name": "a tool"}
        assert set(record["ci95"]) >= {"ap", "ar"}

    def test_no_such_file(self, cli, tiny_data: Path):
        result = cli("compare", "meanpose", "--data", tiny_data, *QUICK, "--predictions", "x=no.json", "-q")
        refused(result, DATA, "--predictions x=no.json: no such file")

    def test_predictions_alone(self, cli, tiny_data: Path, results: Path):
        words = ("--predictions", f"one={results}", "--predictions", f"two={results}")
        outcome = done(cli("compare", *words, "--data", tiny_data, "-q", "--json"))
        assert outcome["protocol"]["dataset"] == "tiny"
        assert [row["method"] for row in outcome["rows"]] == ["one", "two"]
        assert outcome["ranked"][1]["difference"]["value"] == 0
        assert not outcome["ranked"][1]["difference"]["resolved"]

    def test_files_of_one_name_are_two_tools(self, cli, tiny_data: Path, results: Path):
        Path("other").mkdir()
        other = Path("other/tool.json")
        other.write_text(json.dumps(tiny.guesses(tiny.read(tiny_data), 8)))
        words = ("compare", "--predictions", results, "--predictions", other, "--data", tiny_data, "-q")
        ours, theirs = done(cli(*words, "--json"))["ranked"]
        assert (ours["rows"], theirs["rows"]) == ([0], [1])
        assert theirs["difference"]["to"] == [0]
        assert "seeds" not in cli(*words).stdout

    def test_nobody_found_is_told(self, cli, tiny_data: Path):
        Path("none.json").write_text("[]")
        text = cli("eval", "--predictions", "none.json", "--data", tiny_data, "-q").stdout
        assert "persons not found: 100.0 %" in text
        assert "mended" not in text

    def test_how_predictions_were_made_is_not_known(self, cli, tiny_data: Path, results: Path):
        text = cli("eval", "--predictions", results, "--data", tiny_data, "-q").stdout
        assert "9 persons in 3 images, record" in text
        assert "flip" not in text

    def test_submission_of_a_file(self, cli, results: Path, tiny_data: Path):
        words = ("eval", "--predictions", results, "--data", tiny_data, "--export-testdev", "out", "-q", "--json")
        told = done(cli(*words))
        assert told["results"] == 9
        assert any("image ids not checked" in note for note in told["notes"])
        assert zipfile.ZipFile(told["file"]).namelist() == ["person_keypoints_test-dev2017_tool_results.json"]

    def test_submission_of_a_method(self, cli, tiny_copy: Path, trained: Path):
        """Pictures without annotations: boxes are detected, and nothing can be scored."""
        truth = tiny.read(tiny_copy)
        told = tiny.annotations(tiny_copy)
        told.with_name("image_info_test-dev2017.json").write_text(
            json.dumps({"images": truth["images"], "categories": truth["categories"]})
        )
        (tiny_copy / "images" / "val").rename(tiny_copy / "images" / "test2017")
        boxes = [
            {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.5} for a in truth["annotations"]
        ]
        Path("boxes.json").write_text(json.dumps(boxes))
        weights = next(trained.rglob("hrnet/*/weights.safetensors"))
        words = (
            "eval",
            "hrnet",
            "--data",
            tiny_copy,
            "--split",
            "test-dev",
            "--weights",
            weights,
            "--recipe",
            "quick",
            "-q",
        )
        written = done(cli(*words, "--boxes", "boxes.json", "--export-testdev", "out", "--name", "mine", "--json"))
        assert written["file"] == "out/person_keypoints_test-dev2017_mine_results.zip"
        assert written["images"] == 3
        refused(cli(*words, "--boxes", "boxes.json"), DATA, "without annotations", "--export-testdev")
        refused(cli(*words, "--export-testdev", "out"), USAGE, "--boxes FILE")
        train = ("train", "meanpose", "--data", tiny_copy, "--train-split", "test-dev", *QUICK, "-q")
        refused(cli(*train), DATA, "annotates nobody")


class TestReport:
    def test_tables_in_files_and_a_page(self, cli, tiny_data: Path, results: Path):
        done(cli("eval", "--predictions", results, "--data", tiny_data, "-q", "--json"))
        outs = {"--markdown": "t/t.md", "--latex": "t.tex", "--csv": "t.csv", "--html": "page"}
        told = done(cli("report", "results", *(word for pair in outs.items() for word in pair), "--json"))
        assert set(told["files"]) == {"t/t.md", "t.tex", "t.csv", "page/index.html"}
        assert r"\toprule" in Path("t.tex").read_text()
        assert Path("t.csv").read_text().startswith("table,")
        assert "tool.json" in Path("page/index.html").read_text()
        (table,) = told["tables"]
        assert table["rows"][0]["measured: AP"]

    def test_a_published_table_without_records(self, cli):
        Path("results").mkdir()
        told = done(cli("report", "results", "--table", "cal/8", "--json"))
        assert len(told["tables"][0]["rows"]) == 16
        assert told["tables"][0]["rows"][0]["reported: AP"] == "29.7"
        text = cli("report", "results", "--table", "cal/8").stdout
        assert "Nothing of this table was measured yet" in text

    @pytest.mark.parametrize("words", [[], ["--html", "out"]])
    def test_nothing_to_report(self, cli, words: list[str]):
        Path("results").mkdir()
        refused(cli("report", "results", *words), USAGE, "no records", "lrbench eval")

    def test_unknown_table(self, cli):
        refused(cli("report", "results", "--table", "cal/80"), USAGE, "unknown table 'cal/80'", "cal/8")
