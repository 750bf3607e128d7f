"""The commands as a person meets them: refusals in one line, JSON, comparing, interrupting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
import torch

import lrbench
import lrbench.method
from lrbench.method import load_method
from lrbench.records import METRICS

QUICK = (
    "--recipe",
    "quick",
    "--epochs",
    "1",
    "--batch",
    "4",
    "--device",
    "cpu",
    "--precision",
    "32-true",
    "--workers",
    "0",
)
USAGE, DATA, FAILED = 2, 3, 1


def refused(result: Any, code: int, *words: str) -> str:
    """The one line of a refusal, after checking that it is one."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lrbench: ")
    for word in words:
        assert word in line, line
    return line


def kept(*folders: Path) -> dict[Path, bytes]:
    """Every file below some folders, with its content."""
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def process(*words: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    home = str(Path(lrbench.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}
    code = "import sys; from lrbench.cli import main; sys.argv[0] = 'lrbench'; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options
    )  # fmt: skip


class TestUsage:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["hrnett"], ["unknown method 'hrnett'", "did you mean hrnet"]),
            (["xyzzy"], ["unknown method 'xyzzy'", "known: ", "cal", "hrnet"]),
            (["hrnet", "--res", "64by48"], ["size '64by48'", "HEIGHTxWIDTH"]),
            (["hrnet", "--res", "64"], ["size '64'"]),
            (["hrnet", "--res", "0x48"], ["0x48", "at least 1"]),
            (["hrnet", "--res", "50x50"], ["50x50", "multiples of 4"]),
            (["hrnet", "--set", "fusion=official"], ["64x48"]),
            (["cal", "--set", "fusion=official"], ["64x48"]),
            (["hrnet", "--backbone", "hrnet_w33"], ["unknown backbone 'hrnet_w33'", "hrnet_w32"]),
            (["hrnet", "--recipe", "quik"], ["unknown recipe 'quik'", "did you mean quick"]),
            (["hrnet", "--lr-preset", "papr"], ["papr", "paper"]),
            (["hrnet", "--set", "sigm=2"], ["unknown setting of hrnet 'sigm'", "sigma"]),
            (["hrnet", "--set", "sigma"], ["--set sigma: expected KEY=VALUE"]),
            (["hrnet", "--set", "sigma=wide"], ["--set sigma=wide", "float"]),
            (["cal", "--set", "mask=round"], ["--set mask=round", "mgm, fixed"]),
            (["hrnet", "--sr", "srcnn"], ["upscaler 'srcnn'"]),
            (["hrnet", "--epochs", "0"], ["--epochs 0: expected at least 1"]),
            (["hrnet", "--batch", "0"], ["--batch 0: expected at least 1"]),
            (["hrnet", "--device", "tpu"], ["--device tpu"]),
            (["hrnet", "--plugin", "nowhere.py"], ["plugin nowhere.py: no such file"]),
        ],
        ids=" ".join,
    )
    def test_wrong_usage_ends_before_any_work(self, cli, tiny_data: Path, words: list[str], expected: list[str]):
        before = kept(tiny_data)
        for command in ("train", "eval", "compare"):
            refused(cli(command, *words, "--data", tiny_data, "-q"), USAGE, *expected)
        assert not Path("runs").exists()
        assert not kept(Path("results"))
        assert kept(tiny_data) == before

    def test_size_of_describe(self, cli):
        refused(cli("describe", "hrnet", "--res", "50x50"), USAGE, "50x50: both sides must be multiples of 4")
        refused(cli("describe", "hrnett"), USAGE, "did you mean hrnet")

    def test_cuda_without_cuda(self, cli, tiny_data: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        refused(cli("train", "hrnet", "--data", tiny_data, "--device", "cuda", "-q"), USAGE, "no CUDA device", "cpu")

    def test_unknown_kind(self, cli):
        refused(cli("ls", "method"), USAGE, "unknown kind 'method'", "did you mean methods")

    def test_unknown_overwrite(self, cli, tiny_data: Path):
        result = cli("compare", "hrnet", "--overwrite", "maybe", "--data", tiny_data, "-q")
        assert result.exit_code == USAGE
        assert isinstance(result.exception, SystemExit)
        assert "maybe" in result.stderr

    def test_eval_of_nothing(self, cli, tiny_data: Path):
        refused(cli("eval", "--data", tiny_data, "-q"), USAGE, "METHOD", "--predictions")

    @pytest.mark.parametrize("option", ["--runs", "--results"])
    def test_folder_that_cannot_be_written(self, cli, tiny_data: Path, option: str):
        Path("file").write_text("kept")
        result = cli("compare", "hrnet", "--data", tiny_data, *QUICK, option, "file/folder", "-q")
        refused(result, USAGE, "file/folder: cannot be written")
        assert Path("file").read_text() == "kept"

    def test_no_arguments_show_the_help(self, cli):
        result = cli()
        assert "compare" in result.output
        assert result.exit_code in (0, 2)


class TestData:
    """Datasets that are missing, damaged or wrong: exit code 3, file or id named, nothing written or changed."""

    def check(self, cli: Callable[..., Any], root: Path, *words: str, method: str = "meanpose") -> None:
        before = kept(root)
        refused(cli("train", method, "--data", root, *QUICK, "-q"), DATA, *words)
        assert not [p for p in kept(Path()) if p.suffix == ".safetensors"]
        assert kept(root) == before

    def test_no_folder(self, cli, tmp_path: Path):
        self.check(cli, tmp_path / "nowhere", "nowhere", "not a folder")

    def test_no_such_split(self, cli, tiny_data: Path):
        result = cli("train", "hrnet", "--data", tiny_data, "--train-split", "trian", *QUICK, "-q")
        refused(result, DATA, "'trian'", "splits found: train, val")

    @pytest.mark.parametrize("method", ["meanpose", "hrnet"])
    @pytest.mark.parametrize("kind", ["missing", "half a JPEG", "half a PNG", "text", "empty", "other size"])
    def test_picture(self, cli, tiny_copy: Path, kind: str, method: str):
        path = tiny.image(tiny_copy, "train", row=2)
        pixels = cv2.imread(str(path))
        png = cv2.imencode(".png", pixels)[1].tobytes()
        if kind == "missing":
            path.unlink()
        elif kind == "other size":
            cv2.imwrite(str(path), pixels[:-1])
        else:
            jpeg = path.read_bytes()
            content = {"half a JPEG": jpeg[: len(jpeg) // 2], "half a PNG": png[: len(png) // 2], "text": b"text" * 500}
            path.write_bytes(content.get(kind, b""))
        words = {
            "missing": "missing",
            "other size": "its annotation says 124x167",
            "text": "no picture",
            "empty": "no picture",
        }
        self.check(cli, tiny_copy, "000000000102.jpg", words.get(kind, "truncated after"), method=method)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", ["not valid JSON"]),
            ("\x00\x01", ["not valid JSON"]),
            ("[]", ["not COCO", "list"]),
            ("{}", ["'images'"]),
            ('{"images": {}}', ["'images'"]),
            ('{"images": []}', ["lists no images"]),
            ('{"images": [{"id": 1}]}', ["image 1", "file_name, height and width"]),
        ],
    )
    def test_annotation_file(self, cli, tiny_copy: Path, content: str, words: list[str]):
        tiny.annotations(tiny_copy, "train").write_text(content)
        self.check(cli, tiny_copy, "person_keypoints_train.json", *words)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda d: d["images"].append(d["images"][0]), ["image id 100 stands twice"]),
            (lambda d: d["annotations"].append(d["annotations"][1]), ["annotation 1001: the id stands twice"]),
            (lambda d: d["annotations"][1].update(image_id=7), ["annotation 1001", "image 7 is not in the file"]),
            (lambda d: d["annotations"][1].pop("image_id"), ["annotation 1001", "image_id"]),
            (lambda d: d["annotations"][1]["keypoints"].pop(), ["annotation 1001", "length 50, expected 51"]),
            (lambda d: d["annotations"][1].update(keypoints=None), ["annotation 1001", "expected 51"]),
            (lambda d: set_keypoint(d, 5, v=3), ["annotation 1001", "flags 0, 1 or 2"]),
            (lambda d: set_keypoint(d, 5, x=float("nan")), ["annotation 1001", "finite"]),
            (lambda d: set_keypoint(d, 9, x=300.0), ["annotation 1001", "left_wrist", "(300, ", "outside", "120x161"]),
            (lambda d: set_keypoint(d, 10, y=-20.0), ["annotation 1001", "right_wrist", "-20", "outside"]),
            (lambda d: d["annotations"][1].update(bbox=[9, 9, 0, 20]), ["annotation 1001", "box", "sides above 0"]),
            (lambda d: d["annotations"][1].update(bbox=[9, 9, 20]), ["annotation 1001", "box"]),
            (lambda d: d["annotations"][1].pop("bbox"), ["annotation 1001", "needs bbox"]),
            (lambda d: d.update(annotations=[]), ["no labelled person"]),
            (
                lambda d: [a.update(keypoints=[0] * 51, num_keypoints=0) for a in d["annotations"]],
                ["no labelled person among 12"],
            ),
            (lambda d: d["images"][1].update(file_name="../secret.jpg"), ["image 101", "'../secret.jpg'", "refused"]),
            (lambda d: d["images"][1].update(file_name="a/../../b.jpg"), ["image 101", "refused"]),
            (lambda d: d["images"][1].update(file_name="/etc/hostname"), ["image 101", "'/etc/hostname'", "refused"]),
            (lambda d: d["images"][1].update(height="tall"), ["image 101"]),
        ],
    )
    def test_annotations(self, cli, tiny_copy: Path, change: Callable[[dict], Any], words: list[str]):
        with tiny.change(tiny_copy, "train") as data:
            change(data)
        self.check(cli, tiny_copy, "person_keypoints_train.json", *words)

    def test_file_that_does_not_say_what_a_person_is(self, cli, tiny_copy: Path):
        with tiny.change(tiny_copy, "train") as data:
            del data["categories"]
        self.check(cli, tiny_copy, "person_keypoints_train.json", "categories")

    def test_data_check_finds_it_too(self, cli, tiny_copy: Path):
        assert cli("data", "check", "--data", tiny_copy, "-q").exit_code == 0
        path = tiny.image(tiny_copy, "val", row=1)
        path.write_bytes(path.read_bytes()[:-100])
        refused(cli("data", "check", "--data", tiny_copy, "-q"), DATA, path.name, "truncated")

    def test_data_check_counts(self, cli, tiny_data: Path):
        result = cli("data", "check", "--data", tiny_data, "--json", "-q")
        facts = json.loads(result.stdout)["splits"]
        assert [(f["split"], f["images"], f["persons"], f["left_out"]) for f in facts] == [
            ("train", 4, 12, {}), ("val", 3, 9, {})
        ]  # fmt: skip


def set_keypoint(data: dict[str, Any], k: int, **changes: float) -> None:
    for name, value in changes.items():
        data["annotations"][1]["keypoints"][3 * k + "xyv".index(name)] = value
    data["annotations"][1]["keypoints"][3 * k + 2] = changes.get("v", 2)


class TestWeights:
    def score(self, cli, data: Path, method: str, *words: object) -> Any:
        return cli("eval", method, "--data", data, *QUICK, "-q", *words)

    def test_nothing_trained(self, cli, tiny_data: Path):
        line = refused(self.score(cli, tiny_data, "cal"), DATA, "no finished run", "lrbench train cal --res 64x48")
        assert str(tiny_data) in line

    def test_of_another_method(self, cli, tiny_data: Path, trained: Path):
        weights = next(trained.rglob("hrnet/*/weights.safetensors"))
        refused(self.score(cli, tiny_data, "cal", "--weights", weights), DATA, "do not fit cal", str(weights))
        refused(
            self.score(cli, tiny_data, "hrnet", "--backbone", "hrnet_w32", "--weights", weights),
            DATA,
            "do not fit hrnet",
        )
        assert not kept(Path("results"))

    def test_the_file_says_backbone_and_size(self, cli, tiny_data: Path, trained: Path, tmp_path: Path):
        network = load_method("hrnet", (128, 96), "hrnet_w32").build_model().network
        torch.save(network.state_dict(), tmp_path / "pose_hrnet_w32_128x96.pth")
        words = ("eval", "hrnet", "--data", tiny_data, "--recipe", "quick", "-q", "--json")
        result = cli(*words, "--weights", tmp_path / "pose_hrnet_w32_128x96.pth")
        call = json.loads(result.stdout)["call"]
        assert (call["backbone"], call["res"]) == ("hrnet_w32", "128x96")
        own = next(trained.rglob("hrnet/*/weights.safetensors"))
        call = json.loads(cli(*words, "--weights", own).stdout)["call"]
        assert (call["backbone"], call["res"]) == ("hrnet_w16", "64x48")

    def test_with_code_in_them(self, cli, tiny_data: Path, tmp_path: Path):
        class Trap:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path / 'executed'}",)

        torch.save({"conv1.weight": Trap()}, tmp_path / "w.pth")
        for option, command in (("--weights", "eval"), ("--start", "train")):
            result = cli(command, "hrnet", "--data", tiny_data, *QUICK, "-q", option, tmp_path / "w.pth")
            refused(result, DATA, "w.pth: refused")
        assert not (tmp_path / "executed").exists()
        assert not kept(Path("results"))

    @pytest.mark.parametrize("damage", ["cut", "empty"])
    def test_damaged(self, cli, tiny_data: Path, trained: Path, tmp_path: Path, damage: str):
        data = next(trained.rglob("hrnet/*/weights.safetensors")).read_bytes()
        path = tmp_path / "w.safetensors"
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
        refused(self.score(cli, tiny_data, "hrnet", "--weights", path), DATA, "w.safetensors: refused")
        result = cli("train", "hrnet", "--data", tiny_data, *QUICK, "-q", "--start", path)
        refused(result, DATA, "w.safetensors: refused")

    def test_missing_start(self, cli, tiny_data: Path):
        result = cli("train", "hrnet", "--data", tiny_data, *QUICK, "-q", "--start", "no.pth")
        refused(result, DATA, "--start no.pth: no such file")

    def test_missing(self, cli, tiny_data: Path):
        refused(
            self.score(cli, tiny_data, "hrnet", "--weights", "no.safetensors"), DATA, "no.safetensors: no such file"
        )

    def test_start_that_fits_nowhere(self, cli, tiny_data: Path, trained: Path):
        weights = next(trained.rglob("meanpose/*/weights.safetensors"))
        result = cli("train", "hrnet", "--data", tiny_data, *QUICK, "-q", "--start", weights)
        refused(result, DATA, "none of its 1 tensors fits hrnet")

    def test_damaged_state_of_a_run(self, cli, tiny_data: Path):
        command = ("train", "hrnet", "--data", tiny_data, *QUICK, "-q")
        assert cli(*command).exit_code == 0
        (state,) = Path("runs").rglob("state.pt")
        state.write_bytes(state.read_bytes()[:5000])
        before = kept(Path("runs"))
        refused(cli(*command), DATA, "state.pt is damaged", "remove the folder")
        assert kept(Path("runs")) == before


class TestBoxesAndPredictions:
    ROW: dict[str, Any] = {"image_id": 200, "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", ["not valid JSON"]),
            ("{}", ["expected a list"]),
            ([], ["no box of category 1"]),
            ([ROW | {"category_id": 2}], ["no box of category 1"]),
            ([ROW, ROW | {"image_id": 9}], ["row 1", "image 9 is not in this split"]),
            ([ROW, ROW | {"bbox": [1, 2, 0, 4]}], ["row 1", "sides above 0"]),
            ([{"image_id": 200}], ["row 0", "expected image_id"]),
            (None, ["no such file"]),
        ],
    )
    def test_boxes(self, cli, tiny_data: Path, trained: Path, content: Any, words: list[str]):
        if content is not None:
            Path("boxes.json").write_text(content if isinstance(content, str) else json.dumps(content))
        command = ("eval", "meanpose", "--data", tiny_data, *QUICK, "--runs", trained, "--boxes", "boxes.json", "-q")
        refused(cli(*command), DATA, "boxes.json", *words)
        assert not kept(Path("results"))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("[", ["not valid JSON"]),
            ("{}", ["expected a list"]),
            ([{"image_id": 200, "category_id": 1, "keypoints": [1] * 50, "score": 1}], ["row 0", "51"]),
            ([{"image_id": 9, "category_id": 1, "keypoints": [1] * 51, "score": 1}], ["row 0", "image 9"]),
            (None, ["cannot be read"]),
        ],
    )
    def test_predictions(self, cli, tiny_data: Path, content: Any, words: list[str]):
        if content is not None:
            Path("p.json").write_text(content if isinstance(content, str) else json.dumps(content))
        refused(cli("eval", "--predictions", "p.json", "--data", tiny_data, "-q"), DATA, "p.json", *words)
        assert not kept(Path("results"))

    def test_predictions_need_no_pictures(self, cli, tiny_copy: Path):
        import shutil

        rows = [
            {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
            for a in tiny.read(tiny_copy)["annotations"]
        ]
        Path("p.json").write_text(json.dumps(rows))
        shutil.rmtree(tiny_copy / "images")
        record = json.loads(cli("eval", "--predictions", "p.json", "--data", tiny_copy, "--json").stdout)
        assert record["metrics"]["ap"] == 1
        assert record["metrics"]["ap_l"] is None
        assert record["call"]["name"] == "predictions"
        assert record["counts"] == {"images": 3, "persons": 9, "crops": 0, "predictions": 9}


METRIC_TYPES = (float, type(None))
ROW = {
    "method": str, "backbone": str, "sr": str, "res": str, "seed": int, "status": str, "reason": (str, type(None)),
    "metrics": (dict, type(None)), "ci95": dict, "reported": (dict, type(None)), "params": int, "macs": int,
    "n_images": (int, type(None)), "n_persons": (int, type(None)),
}  # fmt: skip


def check_row(row: dict[str, Any]) -> None:
    assert set(ROW) <= set(row)
    for key, kind in ROW.items():
        assert isinstance(row[key], kind), (key, row[key])
    assert row["status"] in ("done", "failed", "missing")
    assert (row["metrics"] is not None) == (row["status"] == "done")
    if row["metrics"] is not None:
        assert list(row["metrics"]) == list(METRICS)
        assert all(isinstance(v, METRIC_TYPES) for v in row["metrics"].values())
        assert all(0 <= v <= 1 for v in row["metrics"].values() if v is not None)
    if row["reported"] is not None:
        assert {"source", "table", "split", "backbone", "ap", "delta_ap", "protocol_differs"} <= set(row["reported"])
        assert isinstance(row["reported"]["protocol_differs"], list)


class TestUpscalers:
    SIZE = ("--res", "16x12")

    def command(self, data: Path, *words: object) -> list[object]:
        return ["compare", "udp", *self.SIZE, "--data", data, *QUICK, "--sr-epochs", 1, *words]

    def test_train_one(self, cli, tiny_data: Path):
        words = ["train", "spsr_tiny", *self.SIZE, "--scale", 4, "--data", tiny_data, *QUICK]
        result = cli(*words, "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)
        assert Path(document["weights"]).parents[1] == Path("runs/tiny/16x12/spsr_tiny")
        assert document["epochs"] == 1
        assert document["quality"]["persons"] == 3
        for scores in (document["quality"], document["quality"]["bicubic"]):
            assert 20 < scores["psnr"] < 60
            assert 0 < scores["ssim"] < 1
            assert scores["gradient_l1"] > 0
        files = kept(Path("runs"))
        again = cli(*words, "-q")  # for people
        assert again.exit_code == 0
        assert again.stderr == ""
        for word in ("spsr_tiny 16x12: 1 epochs", "PSNR (dB)", "bicubic", document["run"]):
            assert word in again.stdout
        assert kept(Path("runs")) == files

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["bicubic"], ["upscaler bicubic has nothing to train; use it by --sr bicubic"]),
            (["srvgg_tiny", "--set", "depth=2"], ["--set depth=2: srvgg_tiny is an upscaler and has no settings"]),
            (["srvgg_tiny", "--scale", "3"], ["srvgg_tiny: scale 3; choose one of 2, 4"]),
            (["srvgg_tiny", "--sr", "edsr"], ["--sr edsr: belongs to the training of methods"]),
            (["srvgg_tiny", "--pose", "mix"], ["--pose mix: belongs to the training of methods"]),
            (["srvgg_tiny", "--backbone", "hrnet_w32"], ["--backbone hrnet_w32: belongs to the training of methods"]),
            (["srvgg_tiny", "--pretrained", "a.pth"], ["--pretrained", "belongs to the training of methods"]),
            (["srvgg_tiny", "--degrade-train", "mix"], ["--degrade-train mix: belongs to the training of methods"]),
            (["srvgg_tiny", "--epochs", "0"], ["epochs 0 of an upscaler: expected at least 1"]),
            (["esrgan"], ["give --features FILE"]),
            (["udp", "--features", "vgg.pth"], ["--features vgg.pth: belongs to the training of an upscaler"]),
            (["udp", "--sr", "bicubic", "--pose", "joint"], ["nothing to train; choose clean, up, sr or mix"]),
            (["udp", "--sr", "bicubic", "--pose", "klean"], ["unknown choice of pose 'klean'; did you mean clean?"]),
            (["udp", "--sr", "bicubic", "--adapt-epochs", "0"], ["--adapt-epochs 0: expected at least 1"]),
            (["udp", "--sr", "bicubic", "--align", "center"], ["unknown alignment 'center'", "corner"]),
            (["udp", "--pose", "clean"], ["--pose clean: there is no upscaler; give --sr NAME"]),
            (["udp", "--scale", "2"], ["--sr-scale 2: there is no upscaler; give --sr NAME"]),
            (["udp", "--sr-map", "naive"], ["--sr-map naive: there is no upscaler"]),
            (["udp", "--degrade-train", "mxi"], ["unknown degradation 'mxi'"]),
        ],
        ids=" ".join,
    )
    def test_wrong_usage_ends_before_any_work(self, cli, tiny_data: Path, words: list[str], expected: list[str]):
        refused(cli("train", *words, *self.SIZE, "--data", tiny_data, "-q"), USAGE, *expected)
        assert not Path("runs").exists()

    def test_an_option_that_train_does_not_have(self, cli):
        result = cli("train", "srvgg_tiny", "--flip")
        assert result.exit_code == USAGE
        assert "--flip" in result.stderr

    def test_clean_weights_are_not_trained(self, cli, tiny_data: Path):
        Path("clean.pth").write_bytes(b"")
        words = ("train", "udp", "--sr", "bicubic", *self.SIZE, "--data", tiny_data, "-q", "--pose", "clean", "--clean")
        refused(cli(*words, "clean.pth"), USAGE, "clean.pth", "nothing to train")
        refused(cli(*words, "none.pth"), DATA, "--clean none.pth: no such file")

    @pytest.mark.parametrize(
        ("words", "code", "expected"),
        [
            (["--clean", "udp.pth"], USAGE, "--clean udp.pth: expected METHOD=FILE, for example hrnet="),
            (["--clean", "upd=udp.pth"], USAGE, "unknown method 'upd'; did you mean udp"),
            (["--clean", "udp=udp.pth"], DATA, "--clean udp=udp.pth: no such file"),
            (["--pose", "klean"], USAGE, "unknown choice of pose 'klean'"),
            (["--sr", "srvgg_tiny", "--pose", "joint"], USAGE, "upscaler bicubic with pose=joint"),
            (["--lr-preset", "paper", "--lr-preset", "papr"], USAGE, "unknown degradation 'papr'"),
        ],
    )
    def test_wrong_usage_of_compare(self, cli, tiny_data: Path, words: list[str], code: int, expected: str):
        refused(cli(*self.command(tiny_data, "--sr", "bicubic", *words, "-q")), code, expected)
        assert not Path("runs").exists()

    @pytest.mark.parametrize("words", [["--pose", "sr"], ["--clean", "udp=file"], ["--sr-map", "naive"]])
    @pytest.mark.parametrize("front", [[], ["--sr", "none"]])
    def test_options_of_upscalers_without_one(self, cli, tiny_data: Path, words: list[str], front: list[str]):
        command = ["compare", "udp", *self.SIZE, "--data", tiny_data, *QUICK, "-q", *front, *words]
        refused(cli(*command), USAGE, f"{' '.join(words)}: there is no upscaler; give --sr NAME")

    def test_compare(self, cli, tiny_data: Path):
        fronts = ("--sr", "none", "--sr", "bicubic", "--sr", "srvgg_tiny", "--pose", "clean", "--pose", "sr")
        table = cli(*self.command(tiny_data, *fronts))
        assert table.exit_code == 0, table.stderr
        heading = next(line for line in table.stdout.splitlines() if line.startswith("Method"))
        assert heading.split()[:4] == ["Method", "Backbone", "Upscaler", "Pose"]
        for words in (
            "Pixels: cut once per person by the rule corner, and read by every row of the size; paper: bilinear",
            "Pose clean: trained on crops of the enlarged size, cut from the photograph; up: trained on small",
            "8-bit pixels between upscaler and network; coordinates mapped back exactly; Params and GMACs are those of",
            "srvgg_tiny x4: 1 epoch of 9 persons of tiny/train, bicubic pairs; PSNR",
        ):
            assert words in " ".join(table.stdout.split())
        assert "[2/5] udp 16x12 bicubic clean: " in table.stderr
        rows = json.loads(cli(*self.command(tiny_data, *fronts, "--json", "-q")).stdout)["rows"]
        for row in rows:
            check_row(row)
            assert (row["status"], row["align"], row["lr_preset"]) == ("done", "corner", "paper")
        assert [(row["sr"], row["pose"]) for row in rows] == [
            ("none", ""),
            ("bicubic x4", "clean"),
            ("bicubic x4", "up"),
            ("srvgg_tiny x4", "clean"),
            ("srvgg_tiny x4", "sr"),
        ]
        assert [row["upscaler"] is not None for row in rows] == [False, False, False, True, True]
        assert rows[1]["macs"] < rows[3]["macs"]

    def test_rows_of_a_published_table(self, cli, tiny_data: Path):
        """With its controls; nothing has to be trained to list them."""
        words = ("compare", "--table", "cal/2", "--data", tiny_data, *QUICK, "--no-train", "--json")
        result = cli(*words, "-q")
        assert result.exit_code == 0, result.stderr
        rows = json.loads(result.stdout)["rows"]
        for row in rows:
            check_row(row)
            assert row["status"] == "missing"
        assert {row["row"] for row in rows} == set("ABCDEFH")
        plain = json.loads(cli(*words, "--no-controls", "-q").stdout)["rows"]
        assert [row["reported"]["ap"] for row in plain] == [row["reported"]["ap"] for row in rows[:10]]
        assert {row["row"] for row in plain} == {""}


class TestCompare:
    def command(self, data: Path, *words: object) -> list[object]:
        return ["compare", "meanpose", "hrnet", "--data", data, *QUICK, *words]

    def test_pixels_of_a_severity(self, cli, tiny_data: Path):
        words = ("compare", "meanpose", "--data", tiny_data, *QUICK, "-q", "--lr-preset", "sensor")
        document = json.loads(cli(*words, "--severity", 2, "--lr-seed", 5, "--json").stdout)
        assert (document["protocol"]["lr_preset"], document["protocol"]["severity"]) == ("sensor", 2)
        made = json.loads(next(Path("results").rglob("*.json")).read_text())["protocol"]["degradation"]
        assert (made["crop"]["severity"], made["crop"]["sampling"], made["seed"]) == (2, "Sensor", 5)
        refused(cli(*words, "--severity", 6), USAGE, "preset sensor: severity 6; expected 1 (mild) to 5 (hard)")
        refused(cli(*words[:-1], "paper", "--severity", 1), USAGE, "preset paper has no severities")

    def test_two_methods_two_seeds_and_again(self, cli, tiny_data: Path):
        seeds = ("--seed", 0, "--seed", 1)
        first = cli(*self.command(tiny_data, *seeds, "--json", "-q"))
        assert first.exit_code == 0, first.output
        document = json.loads(first.stdout)
        assert [(r["method"], r["seed"]) for r in document["rows"]] == [
            ("meanpose", 0), ("meanpose", 1), ("hrnet", 0), ("hrnet", 1)
        ]  # fmt: skip
        for row in document["rows"]:
            check_row(row)
            assert (row["status"], row["res"], row["n_images"], row["n_persons"]) == ("done", "64x48", 3, 9)
        protocol = document["protocol"]
        assert (protocol["dataset"], protocol["split"], protocol["seeds"]) == ("tiny", "val", [0, 1])
        assert (protocol["boxes"], protocol["flip"], protocol["lr_preset"]) == ("gt", True, "paper")
        files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept(Path("runs"), Path("results"))}
        assert len([path for path in files if path.name == "weights.safetensors"]) == 4
        again = cli(*self.command(tiny_data, *seeds, "--json"))
        assert json.loads(again.stdout) == document
        assert "epoch" not in again.stderr
        assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in kept(Path("runs"), Path("results"))} == files

    def test_table(self, cli, tiny_data: Path, trained: Path):
        result = cli(*self.command(tiny_data, "--runs", trained, "--no-train", "-q"))
        assert result.exit_code == 0
        assert result.stderr == ""
        for word in ("meanpose", "hrnet", "hrnet_w16", "AP50", "tiny val", "9 persons"):
            assert word in result.stdout

    def test_no_train_is_a_missing_row(self, cli, tiny_data: Path):
        result = cli(*self.command(tiny_data, "--no-train", "--json", "-q"))
        assert result.exit_code == 0
        for row in json.loads(result.stdout)["rows"]:
            check_row(row)
            assert row["status"] == "missing"
            assert f"lrbench train {row['method']}" in row["reason"]
        assert not kept(Path("runs"))

    def test_failed_row_leaves_the_others(self, cli, tiny_data: Path):
        Path("broken.py").write_text(BREAKS)
        words = ["compare", "hrnet", "broken", "meanpose", "--plugin", "broken.py", "--data", tiny_data, *QUICK, "-q"]
        result = cli(*words, "--json")
        assert result.exit_code == FAILED
        rows = json.loads(result.stdout)["rows"]
        assert [row["status"] for row in rows] == ["done", "failed", "done"]
        assert "the loss is nan in epoch 1" in rows[1]["reason"]
        for row in rows:
            check_row(row)
        table = cli(*words)
        assert table.exit_code == FAILED
        assert "broken" in table.stdout
        assert "failed" in table.stdout

    def test_setting_that_only_one_method_has(self, cli, tiny_data: Path):
        words = ("compare", "hrnet", "cal", "--data", tiny_data, *QUICK, "--no-train", "--json", "-q")
        assert cli(*words, "--set", "mask=fixed").exit_code == 0
        refused(cli(*words, "--set", "masc=fixed"), USAGE, "unknown setting of hrnet, cal 'masc'", "mask")


PLUGIN = '''"""A plugged-in method."""
import dataclasses
from lrbench.methods import hrnet

PAPER = "nobody, 2020"

def build(size, backbone: str = "hrnet_w32", sigma: float = 2.0):
    return hrnet.build(size, backbone, sigma=sigma)
'''
BREAKS = '''"""A method whose loss is not a number."""
import dataclasses
from lrbench.methods import hrnet

def loss(prediction, ideal, weight):
    return {"heatmap": prediction[0].sum() * float("nan")}

def build(size, backbone: str = "hrnet_w32"):
    method = hrnet.build(size, backbone)
    return dataclasses.replace(method, stages=tuple(dataclasses.replace(s, loss=loss) for s in method.stages))
'''


class TestPlugins:
    def test_adds_a_method(self, cli, tiny_data: Path):
        Path("mine.py").write_text(PLUGIN)
        listed = json.loads(cli("ls", "--plugin", "mine.py", "--json").stdout)["methods"]
        (row,) = [row for row in listed if row["name"] == "mine"]
        said = {"summary": "A plugged-in method.", "paper": "nobody, 2020", "source": "file", "error": None}
        assert said.items() <= row.items()
        facts = json.loads(cli("describe", "mine", "--plugin", "mine.py", "--set", "sigma=1.5", "--json").stdout)
        assert facts["method"] == "mine"
        assert facts["settings"]["settings"]["sigma"] == 1.5
        result = cli("train", "mine", "--plugin", "mine.py", "--data", tiny_data, *QUICK, "-q", "--json")
        assert result.exit_code == 0
        assert Path(json.loads(result.stdout)["weights"]).parents[1] == Path("runs/tiny/64x48/mine")

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            ("import nothing_of_this_name", "ModuleNotFoundError"),
            ("1 +", "SyntaxError"),
            ("raise RuntimeError('no')", "RuntimeError: no"),
            ("x = 1", "defines no function build"),
        ],
    )
    def test_broken_file_is_one_line(self, cli, tiny_data: Path, content: str, word: str):
        Path("bad.py").write_text(content)
        for words in (["ls"], ["describe", "hrnet"], ["compare", "hrnet", "--data", tiny_data, "-q"]):
            refused(cli(*words, "--plugin", "bad.py"), USAGE, "plugin bad.py", word)

    @pytest.fixture
    def broken_entry_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Point:
            name, dist = "third", None

            def load(self) -> Any:
                raise ImportError("a library is gone")

        monkeypatch.setattr(
            lrbench.method, "entry_points", lambda group: [Point()] if group == "lrbench.methods" else []
        )

    @pytest.mark.usefixtures("broken_entry_point")
    def test_broken_entry_point_is_a_row(self, cli, tiny_data: Path):
        result = cli("ls", "--json")
        assert result.exit_code == 0
        rows = {row["name"]: row for row in json.loads(result.stdout)["methods"]}
        assert rows["third"]["error"] == "ImportError: a library is gone"
        assert rows["hrnet"]["error"] is None
        assert rows["hrnet"]["source"] == "built-in"
        assert "ImportError" in cli("ls").stdout
        # one that is broken does not stand in the way of the others
        assert cli("compare", "hrnet", "--data", tiny_data, *QUICK, "--no-train", "-q").exit_code == 0

    @pytest.mark.usefixtures("broken_entry_point")
    @pytest.mark.parametrize("command", ["train", "eval", "compare", "describe"])
    def test_broken_entry_point_that_is_asked_for(self, cli, command: str):
        refused(cli(command, "third"), USAGE, "third", "a library is gone")


class TestJson:
    """Exactly one JSON document on stdout; `json.loads` refuses anything beside it."""

    def test_train_and_eval(self, cli, tiny_data: Path):
        trained = json.loads(cli("train", "hrnet", "--data", tiny_data, *QUICK, "--json").stdout)
        assert trained["epochs"] == 1
        assert Path(trained["weights"]).is_file()
        record = json.loads(cli("eval", "hrnet", "--data", tiny_data, *QUICK, "--json").stdout)
        fields = {"schema", "key", "status", "settings", "protocol", "metrics", "ci95", "counts", "cost", "provenance"}
        assert fields <= set(record)
        (path,) = [p for p in Path("results").rglob("*.json") if p.stem == record["key"]]
        assert json.loads(path.read_text()) == record

    def test_ceiling(self, cli, tiny_data: Path):
        document = json.loads(cli("ceiling", "--data", tiny_data, "--json").stdout)
        rows = {row["method"]: row for row in document["rows"]}
        assert set(rows) == {row.name for row in lrbench.method.list_methods()}
        assert all(row["n_persons"] == 9 and set(row["metrics"]) == set(METRICS) for row in rows.values())
        assert rows["cal"]["metrics"]["ap"] > 0.95

    @pytest.mark.parametrize("kind", ["methods", "backbones", "upscalers", "degradations", "datasets", "tables"])
    def test_ls(self, cli, kind: str):
        document = json.loads(cli("ls", kind, "--json").stdout)
        counted = {"year", "backbone", "sizes", "params", "macs"}
        own = {"methods": counted, "tables": {"reported_only"}}.get(kind, set())
        assert list(document) == [kind]
        assert document[kind]
        for row in document[kind]:
            assert set(row) - own == {"name", "summary", "paper", "source", "error"}
            assert row["error"] is None
            assert row["source"] == "built-in"
        assert document[kind][0]["name"][:20] in cli("ls", kind).stdout

    def test_describe(self, cli):
        facts = json.loads(cli("describe", "cal", "--backbone", "hrnet_w32", "--res", "128x96", "--json").stdout)
        # CAL paper / released network
        assert (facts["params"], facts["macs"], facts["macs_sr"]) == (49_314_131, 2_697_338_880, 0)
        assert (facts["method"], facts["backbone"], facts["res"]) == ("cal", "hrnet_w32", "128x96")
        assert sorted(shape for shape in facts["outputs"].values()) == [[1, 17, 2, 32, 24], [1, 17, 32, 24]]
        assert facts["settings"]["settings"]["sigma"] == 1.0

    @pytest.mark.parametrize("name", [row.name for row in lrbench.method.list_methods()])
    def test_describe_all(self, cli, name: str):
        result = cli("describe", name, "--backbone", "hrnet_w16", "--json")
        assert result.exit_code == 0, result.exception
        facts = json.loads(result.stdout)
        assert {"method", "backbone", "res", "params", "macs", "macs_sr", "outputs", "settings"} <= set(facts)
        assert isinstance(facts["params"], int)
        assert isinstance(facts["macs"], int)

    def test_degrade(self, cli, tiny_data: Path):
        pytest.importorskip("lrbench.datasets.degraded")
        result = cli("degrade", tiny_data, "out", "--scale", "2", "--split", "val", "--workers", 1, "--json", "-q")
        assert result.exit_code == 0, result.stderr
        assert len(json.loads(result.stdout)["images"]) == 3
        checked = json.loads(cli("data", "check", "--data", "out", "--split", "val", "--json", "-q").stdout)
        assert checked["splits"][0]["persons"] == 9
        verified = cli("degrade", tiny_data, "out", "--verify", "--json", "-q")
        assert (verified.exit_code, json.loads(verified.stdout)["differences"]) == (0, [])


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("train", ("--sr", "--scale", "--pairs", "--pose", "--clean", "--features", "--degrade-train", "--align")),
        ("eval", ("--sr", "--sr-boundary", "--sr-map", "--pose", "--clean", "--lr-seed", "--weights")),
        ("compare", ("--sr", "--pose", "--clean", "--controls", "--lr-preset", "--table", "--strip")),
        ("describe", ("--sr", "--sr-scale", "--sr-map")),
        ("ceiling", ("--res",)),
        ("degrade", ("--preset", "--verify")),
        ("plot", ("--out",)),
        ("ls", ("--plugin",)),
        ("data check", ("--split",)),
        ("data synth", ("--workers",)),
    ],
)
def test_help(cli, monkeypatch: pytest.MonkeyPatch, command: str, options: tuple[str, ...]):
    monkeypatch.setenv("COLUMNS", "200")
    result = cli(*command.split(), "--help")
    assert result.exit_code == 0
    assert all(option in result.stdout for option in options)


def test_help_imports_nothing_heavy(tmp_path: Path):
    code = (
        "import sys\nfrom lrbench.cli import app\nsys.argv = ['lrbench', '--help']\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('loaded:', *(name for name in ('torch', 'numpy', 'pandas', 'cv2', 'sklearn') if name in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(lrbench.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, text=True, capture_output=True, check=True
    )
    assert "compare" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_stdout_of_a_process_is_the_document(tmp_path: Path, tiny_data: Path):
    """As a script sees it, with what libraries print themselves; half precision, which announces itself."""
    words = ("train", "hrnet", "--data", tiny_data, *QUICK[:-4], "--precision", "bf16-mixed", "--json")
    out, err = (child := process(*words, cwd=tmp_path)).communicate(timeout=100)
    assert child.returncode == 0, err
    assert json.loads(out)["epochs"] == 1
    assert "epoch 1/1" in err
    assert "\r" not in err  # no progress bars in a pipe
    assert "\x1b" not in err


@pytest.mark.slow
def test_interrupted_and_continued(tmp_path: Path, tiny_data: Path):
    words = ["train", "hrnet", "--data", tiny_data, *QUICK, "--epochs", "6", "--json"]
    child = process(*words, cwd=tmp_path)
    assert child.stderr is not None
    heard = []
    for line in child.stderr:
        heard.append(line)
        if "epoch 1/" in line:
            child.send_signal(signal.SIGINT)
            break
    out, err = child.communicate(timeout=100)
    assert child.returncode == 130, "".join(heard) + err
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("lrbench: interrupted")
    assert err.count("lrbench: ") == 1
    assert "Traceback" not in err
    (metrics,) = tmp_path.glob("runs/tiny/64x48/hrnet/*/metrics.jsonl")
    done = len(metrics.read_text().splitlines())
    assert 1 <= done < 6
    assert not metrics.with_name("weights.safetensors").exists()
    assert not list(metrics.parent.glob(".*"))  # no half-written file
    out, err = (child := process(*words, cwd=tmp_path)).communicate(timeout=100)
    assert child.returncode == 0, err
    assert f"epoch {done}/6" not in err
    assert f"epoch {done + 1}/6" in err
    (tmp_path / "other").mkdir()
    whole, err = (child := process(*words, cwd=tmp_path / "other")).communicate(timeout=100)
    assert child.returncode == 0, err
    one, other = tmp_path / json.loads(out)["weights"], tmp_path / "other" / json.loads(whole)["weights"]
    assert one.read_bytes() == other.read_bytes()
    assert np.isfinite(json.loads(whole)["seconds"])
