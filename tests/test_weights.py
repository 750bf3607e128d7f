"""Reading weights: safely, by name, and all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lrbench.datasets.images import DataError
from lrbench.weights import load_weights, pretrained, read_weights


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("layout", ["safetensors", "plain", "state_dict", "module."])
def test_layouts(tmp_path: Path, layout: str):
    state = network().state_dict()
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pth")
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "state_dict":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save({(layout if layout == "module." else "") + k: v for k, v in state.items()}, path)
    assert same(read_weights(path), dict(state))
    target = network()
    load_weights(target, path, "x")
    assert same(target.state_dict(), state)


def test_code_is_refused_and_not_run(tmp_path: Path):
    path, target = tmp_path / "w.pth", tmp_path / "executed"
    torch.save({"conv1.weight": torch.zeros(3), "more": Trap(target)}, path)
    with pytest.raises(DataError, match=r"w\.pth: refused"):
        read_weights(path)
    assert not target.exists()
    torch.load(path, weights_only=False)  # the trap is a real one
    assert target.exists()


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "header"])
def test_damaged(tmp_path: Path, ending: str, damage: str):
    path = tmp_path / f"w{ending}"
    state = network().state_dict()
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    data = path.read_bytes()
    damaged = {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello", "header": b"\xff" * 64 + data[64:]}
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"weights .*refused"):
        read_weights(path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {"state_dict": {"a": "b"}}, torch.zeros(1), 7])
def test_other_things_than_named_tensors(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match="other things than named tensors"):
        read_weights(tmp_path / "w.pth")


def test_missing_or_folder(tmp_path: Path):
    for path in (tmp_path / "w.pth", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            read_weights(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda s: s.pop("1.running_var"),
            "1 tensors missing, 0 unknown, 0 of another shape, for example 1.running_var",
        ),
        (lambda s: s.update(new=torch.zeros(1)), "0 tensors missing, 1 unknown, 0 of another shape, for example new"),
        (
            lambda s: s.update({"0.bias": torch.zeros(5)}),
            "0 tensors missing, 0 unknown, 1 of another shape, for example 0.bias",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, change, words: str):
    state = dict(network().state_dict())
    change(state)
    save_file(state, tmp_path / "w.safetensors")
    target = network()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(DataError, match=f"do not fit cal as asked for .{words}.*check method, backbone, size"):
        load_weights(target, tmp_path / "w.safetensors", "cal")
    assert same(dict(target.state_dict()), before)


def test_shipped_weights_fit_where_there_are_any():
    assert pretrained("no_such_backbone") is None
