"""What the commands do to be fast, and say about time: the cache of decoded pictures, the line at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TINY = ("--res", "64x48", "--recipe", "quick", "--epochs", "2", "--batch", "4", "--device", "cpu", "--precision",
        "32-true", "--workers", "1")  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights_of(result: Any) -> bytes:
    assert result.exit_code == 0, result.stderr
    return Path(json.loads(result.stdout)["weights"]).read_bytes()


def test_trained_with_and_without_the_cache_is_the_same(cli, tiny_data: Path, cache: Path):
    train = ("train", "hrnet", *TINY, "--data", tiny_data, "--json")
    plain = cli(*train, "--runs", "a")
    assert "decoded pictures" not in plain.stderr  # they fit into memory
    kept = cli(*train, "--runs", "b", "--cache", "1")
    assert "decoded pictures: 4 of 4 in" in kept.stderr
    none = cli(*train, "--runs", "c", "--cache", "0")
    assert weights_of(plain) == weights_of(kept) == weights_of(none)
    times = json.loads(kept.stdout)["times"]
    assert {"network", "waiting for crops", "decoded pictures", "writing files"} <= set(times)
    assert all(seconds >= 0 for seconds in times.values())
    (line,) = (line for line in kept.stderr.splitlines() if line.startswith("where the time went: "))
    assert "network" in line
    # a finished run has nothing to wait for
    again = cli(*train, "--runs", "b", "--cache", "1")
    assert "network" not in json.loads(again.stdout)["times"]
    assert "decoded pictures" not in again.stderr


def test_evaluation_and_comparison_end_with_the_line(cli, tiny_data: Path):
    common = (*TINY, "--data", tiny_data, "--runs", "runs", "--results", "results")
    compared = cli("compare", "hrnet", *common, "--cache", "1", "--json")
    assert compared.exit_code == 0, compared.stderr
    assert "where the time went: " in compared.stderr
    scored = cli("eval", "hrnet", *common, "--cache", "1")
    assert "where the time went: " in scored.stderr
    assert "scoring" in scored.stderr
    assert "where the time" not in scored.stdout
    assert cli("eval", "hrnet", *common, "-q").stderr == ""


def test_clear_removes_what_was_kept_and_nothing_else(cli, tiny_data: Path, cache: Path):
    run = cli("train", "hrnet", *TINY, "--data", tiny_data, "--cache", "1", "--json")
    (cache / "synth-x").mkdir()
    assert list(cache.glob("pictures/*/*.u8"))
    freed = json.loads(cli("data", "clear", "--json").stdout)["freed_bytes"]
    assert freed["pictures"] > 0
    assert [path.name for path in cache.iterdir()] == ["synth-x"]
    assert weights_of(run)
    told = cli("data", "clear").stdout.splitlines()
    assert told == ["annotations: 0.0 MB removed", "pictures: 0.0 MB removed"]


def test_what_cannot_be_compiled_is_said_and_trained_as_it_is(cli, tiny_data: Path, monkeypatch):
    def broken(*inputs: Any, **options: Any) -> None:
        raise RuntimeError("no compiler here")

    train = ("train", "hrnet", *TINY, "--data", tiny_data, "--json")
    plain = cli(*train)
    monkeypatch.setattr("torch.compile", broken)
    asked = cli(*train, "--compile")
    assert "not compiled, trained as it is: no compiler here" in asked.stderr
    assert weights_of(asked) == weights_of(plain)
    runs = [Path(json.loads(result.stdout)["run"]) for result in (plain, asked)]
    assert runs[0] != runs[1]  # compiled, last bits may differ, so it is another run
    assert [json.loads((run / "settings.json").read_text()).get("compile") for run in runs] == [None, True]
