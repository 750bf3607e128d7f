"""Methods from outside, as their authors meet them: the README's own one, in a file, in a wheel, and a broken one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import lrbench
import lrbench.method
from lrbench.geometry import Size
from lrbench.method import load_method, load_plugin
from lrbench.structures import COCO

HOME = Path(lrbench.__file__).parents[1]
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "pose-outsider"
version = "1.2.3"

[tool.setuptools]
packages = ["your_package"]

"""
BROKEN = '"""Stands on a library that is gone."""\nimport nothing_of_this_name\n'


def block(mark: str) -> str:
    """A code block of the README, found by the comment in front of it."""
    readme = HOME / "README.md"
    if not readme.is_file():
        pytest.skip("README.md is not beside this copy of lrbench")
    found = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, f"README.md has no block {mark}"
    return found[1]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The README's method in a file."""
    path = tmp_path / "ohkm.py"
    path.write_text(block("method"))
    return path


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a wheel with the README's method, and one with a broken method, were installed by pip."""
    work = tmp_path_factory.mktemp("wheel")
    package = work / "source" / "your_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "ohkm.py").write_text(block("method"))
    (package / "broken.py").write_text(BROKEN)
    entries = f'{block("publish")}stale = "your_package.broken"\nabsent = "your_package.nowhere"\n'
    (package.parent / "pyproject.toml").write_text(PYPROJECT + entries)
    pip("wheel", "--no-build-isolation", "--wheel-dir", work / "wheels", package.parent)
    (wheel,) = (work / "wheels").iterdir()
    pip("install", "--target", work / "installed", wheel)
    return work / "installed"


def pip(command: str, *words: object) -> None:
    """Run pip without network."""
    for package in ("pip", "setuptools"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def command(*words: object, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run lrbench in a process of its own, with a folder of installed packages and an empty cache."""
    paths = [str(path), str(HOME), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "LRBENCH_CACHE": str(cwd / "cache")}
    code = "import lrbench.cli as cli, sys; sys.argv[0] = 'lrbench'; cli.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True
    )


def row_of(document: str, name: str) -> dict[str, Any]:
    (row,) = [row for row in json.loads(document)["methods"] if row["name"] == name]
    return row


@pytest.mark.slow
def test_wheel(installed: Path, tmp_path: Path):
    done = command("ls", "methods", "--json", path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    row = row_of(done.stdout, "ohkm")
    assert (row["source"], row["error"]) == ("pose-outsider 1.2.3", None)
    assert row["summary"] == "OHKM: heatmaps trained on the hardest keypoints of every person."
    assert (row["year"], row["backbone"]) == (2018, "hrnet_w32")
    hrnet = row_of(done.stdout, "hrnet")
    assert (row["sizes"], row["params"], row["macs"]) == (hrnet["sizes"], hrnet["params"], hrnet["macs"])
    # what is broken in the same wheel is a row that says so, and nothing else suffers
    stale, absent = row_of(done.stdout, "stale"), row_of(done.stdout, "absent")
    assert stale["error"] == "ModuleNotFoundError: No module named 'nothing_of_this_name'"
    assert absent["error"] == "ModuleNotFoundError: No module named 'your_package.nowhere'"
    assert {row["source"] for row in (stale, absent)} == {"pose-outsider 1.2.3"}
    assert (stale["sizes"], stale["params"], stale["year"]) == ([], {}, None)
    shown = command("ls", path=installed, cwd=tmp_path)
    assert shown.returncode == 0
    for words in ("pose-outsider", "OHKM: heatmaps", "nothing_of_this_name"):
        assert words in shown.stdout

    done = command("describe", "ohkm", "--set", "count=6", "--json", path=installed, cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert (facts["method"], facts["params"]) == ("ohkm", hrnet["params"]["64x48"])
    assert facts["settings"]["settings"] == {"count": 6}
    assert facts["settings"]["stages"][0]["loss"] == {"function": "your_package.ohkm.hardest", "count": 6}
    refused = command("describe", "stale", path=installed, cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("lrbench: method stale cannot be loaded (ModuleNotFoundError")


def test_without_the_wheel_it_is_unknown(tmp_path: Path):
    done = command("describe", "ohkm", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown method 'ohkm'" in done.stderr


def test_readme_method_is_short():
    lines = [line for line in block("method").splitlines() if line.strip()]
    assert len(lines) < 40


def test_readme_method_learns(cli, plugin: Path, tiny_data: Path):
    quick = ("--recipe", "quick", "--epochs", "1", "--batch", "4", "--device", "cpu", "--precision", "32-true")
    result = cli("train", "ohkm", "--plugin", plugin, "--data", tiny_data, *quick, "--workers", "0", "-q", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["epochs"] == 1
    assert Path(json.loads(result.stdout)["weights"]).is_file()


def test_readme_commands_are_real(cli, plugin: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lrbench.listing.facts", lambda name: {})
    monkeypatch.setenv("LRBENCH_CACHE", str(plugin.parent / "cache"))
    Path("ohkm.py").write_text(plugin.read_text())
    listing, compare = (line.split()[1:] for line in block("use").splitlines())
    row = row_of(cli(*listing, "--json").stdout, "ohkm")
    assert (row["source"], row["error"], row["year"]) == ("file", None, 2018)
    result = cli(*compare, "--data", tiny_data, "--recipe", "quick", "--no-train", "--json", "-q")
    assert [row["method"] for row in json.loads(result.stdout)["rows"]] == ["hrnet", "ohkm"]


def test_readme_loss_counts_the_hardest(plugin: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lrbench.method, "_plugins", {})
    load_plugin(plugin)
    method = load_method("ohkm", Size(64, 48), "hrnet_w16", count=2)
    weight = torch.ones(1, len(COCO))
    ideal, _ = method.codec.encode(torch.full((1, len(COCO), 2), 20.0), weight)
    error = torch.zeros(1, len(COCO), 1, 1)
    error[0, :3, 0, 0] = torch.tensor([3.0, 1.0, 2.0])
    noisy = type(ideal)(ideal.heatmap + error)
    loss = method.stages[0].loss
    assert loss(noisy, ideal, weight)["hardest"].item() == pytest.approx(0.5 * (9 + 4) / 2)
    assert loss(noisy, ideal, 0 * weight)["hardest"].item() == 0
