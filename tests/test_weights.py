"""Reading weights: safely, by name in every released layout, all or nothing to score, the backbone alone to begin."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Golden
from safetensors.torch import save_file
from torch import Tensor, nn

import lrbench.bench
import lrbench.weights
from lrbench.bench import Bench
from lrbench.cells import Cell
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.method import load_method, method_names
from lrbench.models.backbones import BACKBONES
from lrbench.records import read_records
from lrbench.report.reported import comparison, find
from lrbench.weights import NAMED, load_weights, match, pretrained, pretrained_backbone, read_weights

State = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

DATA, USAGE = 3, 2
QUICK = ("--recipe", "quick", "--epochs", "1", "--batch", "4", "--precision", "32-true")
PLAIN = ("--device", "cpu", "--workers", "0")


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def filled(shapes: Shapes) -> State:
    """Tensors by the filling rule of the golden networks, which needs no files."""
    rule = Golden.__new__(Golden)
    rule.facts = {"salt": ""}
    kind = {True: torch.int64, False: torch.float32}
    return {
        name: torch.as_tensor(np.asarray(rule.value(name, shape))).to(kind[name.endswith("num_batches_tracked")])
        for name, shape in shapes.items()
    }


def hollow(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> State:
    """Tensors of any size in a file of a few bytes: one zero, expanded."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes}


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


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


def test_no_shipped_weights():
    assert pretrained("no_such_backbone") is None


def test_legacy_files_are_read_and_their_code_is_not_run(tmp_path: Path):
    """Files of 2018 and 2019, among them torchvision's, are no zip archives."""
    path, target, state = tmp_path / "w.pth.tar", tmp_path / "executed", network().state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(read_weights(path), dict(state))
    torch.save({"state_dict": state, "best": Trap(target)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match="refused"):
        read_weights(path)
    assert not target.exists()


@pytest.mark.parametrize("key", ["state_dict", "model", "network"])
def test_checkpoints(tmp_path: Path, key: str):
    """What lies beside the tensors may be anything that loads without code; "model" may be a mere name."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    beside = {"epoch": 3, "perf": 0.7, "optimizer": optimizer.state_dict(), "meta": {"names": ["nose"]}}
    if key == "state_dict":
        beside["model"] = "pose_hrnet"
    torch.save({**beside, key: dict(net.named_parameters())}, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    assert same(read, dict(net.named_parameters()))
    assert not any(value.requires_grad for value in read.values())


@pytest.mark.parametrize("extra", [3, "text", [torch.zeros(1)], {"a": torch.zeros(1)}, None])
@pytest.mark.parametrize("key", [None, "state_dict"])
def test_other_things_among_the_tensors(tmp_path: Path, key: str | None, extra: object):
    state = {**network().state_dict(), "extra": extra}
    torch.save(state if key is None else {key: state}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth: refused, holds other things than named tensors"):
        read_weights(tmp_path / "w.pth")


def test_files_without_step_counters_fit(tmp_path: Path):
    state = {k: v for k, v in network().state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    target = network()
    fit = load_weights(target, tmp_path / "w.pth", "x")
    assert (len(fit.used), fit.missing, fit.left) == (6, (), ())
    assert torch.equal(target[0].weight, state["0.weight"])


def test_what_may_be_left_over(tmp_path: Path):
    state = {**network().state_dict(), "fc.weight": torch.zeros(2, 2), "1.dead.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        DataError, match=r"0 tensors missing, 1 unknown, 0 of another shape, for example 1\.dead\.weight"
    ):
        load_weights(network(), tmp_path / "w.pth", "x")
    target = network()
    target.left_over = ("*.dead.*",)
    fit = load_weights(target, tmp_path / "w.pth", "x")
    assert str(fit) == "7 tensors used, 0 missing, 0 of another shape, 2 left over (fc.weight, 1.dead.weight)"


class Nested(nn.Module):
    """A trunk and a head under two names, as in mmpose (`backbone`, `keypoint_head`) or in RLE (`preact`)."""

    def __init__(self, trunk: str, head: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(trunk, inner)
        self.add_module(head, nn.ModuleDict({"final_layer": nn.Conv2d(4, 17, 1)}))


PREFIXES = {"flat": ("", ""), "mmpose 0": ("backbone.", "keypoint_head."), "mmpose 1": ("backbone.", "head."),
            "rle": ("preact.", "")}  # fmt: skip


def placed(state: State, layout: str, head: tuple[str, ...] = ("final_layer", "deconv_layers", "mlp_head")) -> State:
    """The names of a flat state dict in another layout."""
    trunk, top = PREFIXES[layout]
    return {(top if name.startswith(head) else trunk) + name: value for name, value in state.items()}


@pytest.mark.parametrize("module", ["", "module."])
@pytest.mark.parametrize("theirs", PREFIXES)
@pytest.mark.parametrize("ours", PREFIXES)
def test_every_layout_fits_every_other(ours: str, theirs: str, module: str, tmp_path: Path):
    shapes = {"conv1.weight": (4, 3, 3, 3), "layer1.0.bn1.bias": (4,), "final_layer.weight": (17, 4, 1, 1)}
    state, file = (placed(filled(shapes), layout) for layout in (ours, theirs))
    torch.save({module + name: value for name, value in file.items()}, tmp_path / "w.pth")
    fit = match(state, read_weights(tmp_path / "w.pth"))
    assert dict(fit.used) == dict(zip(state, file, strict=True))
    assert (fit.reshaped, fit.missing, fit.left) == ({}, (), ())


@pytest.mark.parametrize(("trunk", "head"), [("backbone", "keypoint_head"), ("preact", "fc_coord")])
def test_shipped_trunk_starts_nested_networks(trunk: str, head: str):
    spec, tensors = BACKBONES["hrnet_w16"], pretrained("hrnet_w16")
    assert tensors is not None
    target = Nested(trunk, head, spec.pyramid(Size(64, 48), "crop"))
    fit = lrbench.weights.copy_matching(target, tensors)
    assert sorted(fit.used.values()) == sorted(tensors)
    state = target.state_dict()
    assert all(torch.equal(state[f"{trunk}.{name}"], value) for name, value in tensors.items())


# official files: method, backbone, size, settings, golden network with the published names, how the file is packed

Case = tuple[str, str, str, tuple[str, ...], str, Callable[[State, Path], None]]


def plainly(state: State, path: Path) -> None:
    torch.save(state, path)


def legacy(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def checkpoint(state: State, path: Path) -> None:
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 210, "model": "pose", "state_dict": parallel, "optimizer": {"lr": 1e-3}}, path)


def in_mmpose(version: int) -> Callable[[State, Path], None]:
    def write(state: State, path: Path) -> None:
        torch.save({"meta": {"epoch": 210}, "state_dict": placed(state, f"mmpose {version}")}, path)

    return write


SMALL = "64x48"
OFFICIAL: list[Case] = [
    ("hrnet", "hrnet_w32", SMALL, (), "hrnet_w32_64x48_3branch", plainly),
    ("hrnet", "hrnet_w32", SMALL, (), "hrnet_w32_64x48_3branch", in_mmpose(0)),
    ("dark", "hrnet_w32", SMALL, (), "hrnet_w32_64x48_3branch", checkpoint),
    ("simplebaseline", "resnet50", SMALL, ("colour=bgr",), "simplebaseline_r50_64x48", legacy),
    ("simplebaseline", "resnet50", SMALL, (), "simplebaseline_r50_64x48", in_mmpose(1)),
    ("udp", "hrnet_w32", SMALL, (), "udp_hrnet_w32_offset_64x48_3branch", plainly),
    ("cal", "hrnet_w32", SMALL, (), "cal_w32_64x48", checkpoint),
    ("simcc", "hrnet_w32", SMALL, ("split=3",), "simcc_hrnet_w32_64x48_k3_3branch", plainly),
    ("simcc", "hrnet_w32", SMALL, ("split=3",), "simcc_hrnet_w32_64x48_k3_3branch", in_mmpose(1)),
    ("srpose", "resnet50", "128x96", (), "srpose_r50_128x96", plainly),
    ("rle", "resnet50", SMALL, (), "rle_r50_64x48", plainly),
    ("mgil", "hrnet_w32", "64x64", (), "mgil_hrnet_w32_64x64_k2", legacy),
]


def published_shapes(name: str, method: str, size: str, backbone: str, settings: tuple[str, ...]) -> Shapes:
    """Names and shapes of a published network: from the golden arrays, or, where there are none, from our own."""
    file = Path(os.environ.get("LRBENCH_GOLDEN", "/nowhere")) / "networks" / f"{name}.npz"
    if not file.exists():
        values = lrbench.method.parse_settings(method, settings)
        return shapes_of(load_method(method, Size.parse(size), backbone, **values).build_model().network)
    with np.load(file) as arrays:
        rows = zip(arrays["state_names"], arrays["state_shapes"], strict=True)
        return {name.decode(): tuple(int(v) for v in shape if v >= 0) for name, shape in rows}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The networks that were scored."""
    networks: list[Any] = []
    inner = lrbench.bench.predict

    def spy(method: Any, model: Any, *rest: Any, **options: Any) -> Any:
        networks.append(model.network)
        return inner(method, model, *rest, **options)

    monkeypatch.setattr(lrbench.bench, "predict", spy)
    return networks


def evaluate(cli: Any, data: Path, method: str, backbone: str, path: Path, *words: object) -> Any:
    return cli("eval", method, "--backbone", backbone, "--data", data, "--no-flip", *PLAIN, "--weights", path, *words)


@pytest.mark.parametrize(("method", "backbone", "size", "settings", "name", "write"), OFFICIAL)
def test_official_files_are_scored(
    cli, tiny_data: Path, tmp_path: Path, scored: list[Any], method, backbone, size, settings, name, write
):
    if method not in method_names():
        pytest.skip(f"{method} is not there")
    state = filled(published_shapes(name, method, size, backbone, settings))
    path = tmp_path / "official.pth"
    write(state, path)
    chosen = [word for text in settings for word in ("--set", text)]
    result = evaluate(cli, tiny_data, method, backbone, path, "--res", size, "--json", *chosen)
    assert result.exit_code == 0, result.stderr
    (network,) = scored
    ours = network.state_dict()
    assert set(ours) <= set(state)
    assert all(torch.equal(value, state[key]) for key, value in ours.items())
    used = json.loads(result.stdout)["provenance"]["weights_used"]
    assert f"weights {path}: {used}" in result.stderr.splitlines()
    assert used.startswith(
        f"{len(ours):,} tensors used, 0 missing, 0 of another shape, {len(state) - len(ours):,} left"
    )
    if method != "mgil":  # whose published network has layers that nothing calls
        assert len(ours) == len(state)


def refused(result: Any, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lrbench: ")
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("method", "backbone", "words", "count"),
    [
        ("hrnet", "hrnet_w16", ("--res", "64x48"), "of another shape"),
        ("hrnet", "hrnet_w48", ("--res", "64x48"), "of another shape"),
        ("simplebaseline", "resnet50", ("--res", "64x48"), "tensors missing"),
        ("cal", "hrnet_w32", ("--res", "64x48"), "tensors missing"),
        ("udp", "hrnet_w32", ("--res", "64x48"), "of another shape"),
        ("hrnet", "hrnet_w32", ("--res", "128x96"), "tensors missing"),  # which needs the fourth branch
        ("hrnet", "hrnet_w32", ("--res", "64x48", "--set", "fusion=crop"), "tensors missing"),
    ],
)
def test_of_another_backbone_method_or_size(cli, tiny_data, tmp_path, method, backbone, words, count):
    shapes = shapes_of(load_method("hrnet", (64, 48), "hrnet_w32").build_model().network)
    torch.save(hollow(shapes.items()), tmp_path / "w.pth")
    result = evaluate(cli, tiny_data, method, backbone, tmp_path / "w.pth", "-q", *words)
    refused(
        result, DATA, "w.pth", f"do not fit {method} as asked for", count, "check method, backbone, size and settings"
    )
    assert not list(Path("results").rglob("*.json"))


def test_a_branch_that_is_not_called_is_not_dropped_in_silence(cli, tiny_data, tmp_path):
    """The 256x192 file has all that the three branches at 64x48 need, and yet is of another network."""
    shapes = shapes_of(load_method("hrnet", (256, 192), "hrnet_w32").build_model().network)
    torch.save(hollow(shapes.items()), tmp_path / "w.pth")
    result = evaluate(cli, tiny_data, "hrnet", "hrnet_w32", tmp_path / "w.pth", "-q")
    refused(result, DATA, "0 tensors missing", "unknown", "for example transition3.3.0.0.weight")
    result = evaluate(cli, tiny_data, "hrnet", "hrnet_w32", tmp_path / "w.pth", "-q", "--set", "fusion=crop")
    assert result.exit_code == 0, result.stderr


def test_settings_beside_a_foreign_file_are_not_its_training(cli, tiny_data, tmp_path):
    state = load_method("hrnet", (64, 48), "hrnet_w16").build_model().network.state_dict()
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "settings.json").write_text('{"editor.fontSize": 9}')
    result = evaluate(cli, tiny_data, "hrnet", "hrnet_w16", tmp_path / "w.pth", "-q", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["training"] is None


# ImageNet files: the backbone's own layers, and the classifier's


def classifier_of(backbone: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an ImageNet file of a backbone."""
    with torch.device("meta"):
        shapes = shapes_of(BACKBONES[backbone].pyramid(Size(256, 192)))
    if backbone.startswith("resnet"):
        return {**shapes, "fc.weight": (1000, 8), "fc.bias": (1000,)}
    more = {"incre_modules.0.0.conv1.weight": (32, 32, 1, 1), "incre_modules.0.0.bn1.weight": (32,),
            "downsamp_modules.0.0.weight": (64, 32, 3, 3), "final_layer.0.weight": (64, 32, 1, 1),
            "final_layer.1.running_mean": (64,), "classifier.weight": (1000, 64),
            "classifier.bias": (1000,)}  # fmt: skip
    return {**shapes, **more}


def imagenet(path: Path, backbone: str, layout: str = "flat") -> State:
    state = filled(classifier_of(backbone))
    torch.save(placed(state, layout, ("fc", "classifier")), path)
    return state


def train(cli: Any, data: Path, method: str, *words: object) -> Any:
    return cli("train", method, "--data", data, *QUICK, *PLAIN, "-q", *words)


@pytest.mark.parametrize(
    "method", ["hrnet", "dark", "udp", "cal", "simcc", "srpose", "rle", "mgil", "grmi", "integral"]
)
@pytest.mark.parametrize("backbone", ["hrnet_w16", "resnet18_w32"])
def test_backbones_start_every_method(tmp_path: Path, method: str, backbone: str):
    if method not in method_names():
        pytest.skip(f"{method} is not there")
    try:
        load_method(method, (64, 64), backbone)
    except ValueError as error:
        pytest.skip(str(error))
    state = imagenet(tmp_path / "w.pth", backbone)
    cell = Cell(
        method=method, res=Size(64, 64), backbone=backbone, recipe="paper", pretrained=[str(tmp_path / "w.pth")]
    )
    taken = Bench().starting_weights(cell)
    network = cell.compose().build_model().network
    assert set(taken) <= set(network.state_dict())
    for name, value in taken.items():
        bare = name.removeprefix("backbone.").removeprefix("preact.")
        assert torch.equal(value, state[bare])
    # the trunk is complete, wherever the network keeps it, but for the layers that a method puts in its place
    first = "layer1.0.conv1.weight"
    assert any(name.endswith(first) for name in taken)
    assert len(taken) > 0.6 * sum(n.split(".")[0] in BACKBONES[backbone].shipped for n in classifier_of(backbone))
    assert not any("fc" in name or "final_layer" in name or "_om" in name for name in taken)


@pytest.mark.parametrize(("backbone", "layout"), [("hrnet_w16", "flat"), ("hrnet_w16", "mmpose 0")])
def test_backbone_is_trained_from(cli, tiny_data: Path, tmp_path: Path, backbone: str, layout: str, monkeypatch):
    """The whole way: command line, report, record; a rate of zero leaves what was loaded."""
    state = imagenet(tmp_path / "w.pth", backbone, layout)
    monkeypatch.setattr("lrbench.training.learning_rate", lambda *_: 0.0)
    words = ("hrnet", "--data", tiny_data, *QUICK, *PLAIN, "--pretrained", tmp_path / "w.pth")
    result = cli("train", *words)
    assert result.exit_code == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "starts from" in line]
    network = load_method("hrnet", (64, 48), backbone).build_model().network
    kept = [name for name in network.state_dict() if name in state and not name.startswith("final_layer")]
    assert line.startswith(f"hrnet 64x48 starts from --pretrained {tmp_path / 'w.pth'}: {len(kept):,} tensors used, ")
    assert "2 missing (final_layer.weight, final_layer.bias), 0 of another shape" in line
    assert f"start {tmp_path / 'w.pth'}, " in result.stderr
    (path,) = Path("runs").rglob("weights.safetensors")
    trained = read_weights(path)
    parameters = {name for name, _ in network.named_parameters()}
    assert all(torch.equal(trained[name], state[name]) for name in kept if name in parameters)
    sha = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()
    result = cli("eval", *words, "-q")
    assert result.exit_code == 0, result.stderr
    (record,) = read_records(Path("results"))
    assert record.training is not None
    assert record.training.start == f"pretrained w.pth, sha256:{sha[:16]}"
    assert record.provenance.weights_used == ""


def test_start_takes_heads_and_pretrained_does_not(tmp_path: Path):
    network = load_method("hrnet", (64, 48), "hrnet_w16").build_model().network
    torch.save(network.state_dict(), tmp_path / "w.pth")
    taken = {}
    for option, given in (("start", tmp_path / "w.pth"), ("pretrained", str(tmp_path / "w.pth"))):
        taken[option] = Bench().starting_weights(
            Cell(method="dark", res=Size(64, 48), backbone="hrnet_w16", recipe="paper", **{option: given})
        )
    heads = set(taken["start"]) - set(taken["pretrained"])
    assert heads == {"final_layer.weight", "final_layer.bias"}
    assert set(taken["start"]) == set(network.state_dict())


def test_each_method_takes_its_own_backbone(tmp_path: Path):
    for backbone in ("resnet18_w32", "hrnet_w16"):
        imagenet(tmp_path / f"{backbone}.pth", backbone)
    given = [str(tmp_path / f"{backbone}.pth") for backbone in ("resnet18_w32", "hrnet_w16")]
    for backbone, path in zip(("resnet18_w32", "hrnet_w16"), given, strict=True):
        assert pretrained_backbone(given, backbone).label == f"--pretrained {path}"


@pytest.mark.parametrize(
    ("file", "backbone"),
    [
        ("resnet50", "resnet101"),
        ("resnet101", "resnet50"),
        ("resnet152", "resnet101"),
        ("resnet50", "hrnet_w32"),  # whose layer1 begins with the very same three blocks
        ("hrnet_w32", "resnet50"),
        ("hrnet_w48", "hrnet_w32"),
        ("hrnet_w32", "hrnet_w16"),
    ],
)
def test_of_another_backbone(tmp_path: Path, file: str, backbone: str):
    path = tmp_path / "w.pth"
    torch.save(hollow(classifier_of(file).items()), path)
    assert pretrained_backbone([str(path)], file).allowed
    with pytest.raises(
        DataError, match=rf"no weights of {backbone} among those given; .*w\.pth has other first layers"
    ):
        pretrained_backbone([str(path)], backbone)


def test_refusals_come_before_any_work(cli, tiny_data: Path, tmp_path: Path):
    path = tmp_path / "w.pth"
    torch.save(hollow(classifier_of("hrnet_w32").items()), path)
    refused(train(cli, tiny_data, "hrnet", "--pretrained", path), DATA, "no weights of hrnet_w16")
    compare = ("compare", "meanpose", "hrnet", "--data", tiny_data, *QUICK, *PLAIN, "-q", "--pretrained", path)
    refused(cli(*compare), DATA, "no weights of hrnet_w16")
    refused(
        train(cli, tiny_data, "hrnet", "--pretrained", "nothing.pth"), DATA, "--pretrained nothing.pth: no such file"
    )
    refused(train(cli, tiny_data, "hrnet", "--pretrained", path, "--start", path), USAGE, "give one of them")
    torch.save({"conv1.weight": Trap(tmp_path / "executed")}, path)
    refused(train(cli, tiny_data, "hrnet", "--pretrained", path), DATA, "w.pth: refused")
    assert not (tmp_path / "executed").exists()
    assert not list(Path("runs").rglob("*"))


def test_methods_without_training_begin_with_nothing(cli, tiny_data: Path, tmp_path: Path):
    imagenet(tmp_path / "w.pth", "hrnet_w16")
    result = cli(
        "compare", "meanpose", "--data", tiny_data, *QUICK, *PLAIN, "--pretrained", tmp_path / "w.pth", "--json"
    )
    assert [row["status"] for row in json.loads(result.stdout)["rows"]] == ["done"]
    (record,) = read_records(Path("results"))
    assert record.training is not None
    assert record.training.start == "scratch"


# named files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pretrained"


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A named file of a narrow backbone, whose address is a file."""
    imagenet(tmp_path / "source.pth", "resnet18_w32")
    name = f"resnet18_w32-{hashlib.sha256((tmp_path / 'source.pth').read_bytes()).hexdigest()[:8]}"
    monkeypatch.setitem(NAMED, name, (tmp_path / "source.pth").as_uri())
    return name


def test_named_files_are_backbones():
    for name, url in NAMED.items():
        backbone, _, digits = name.partition("-")
        assert backbone in BACKBONES
        assert len(digits) == 8
        int(digits, 16)
        assert url is None or url.endswith(f"/{name}.pth")


def test_named_file_is_downloaded_once(narrow: str, cache: Path, tmp_path: Path):
    start = pretrained_backbone([narrow], "resnet18_w32")
    assert (cache / f"{narrow}.pth").read_bytes() == (tmp_path / "source.pth").read_bytes()
    assert [path.name for path in cache.iterdir()] == [f"{narrow}.pth"]
    digest = hashlib.sha256((tmp_path / "source.pth").read_bytes()).hexdigest()
    assert start.name == f"imagenet {narrow}, sha256:{digest[:16]}"
    (tmp_path / "source.pth").unlink()
    assert pretrained_backbone([narrow], "resnet18_w32").name == start.name


def test_named_file_given_by_path_is_known(narrow: str, tmp_path: Path):
    (tmp_path / "source.pth").rename(tmp_path / "mine.pth")
    assert pretrained_backbone([str(tmp_path / "mine.pth")], "resnet18_w32").name.startswith(f"imagenet {narrow}, sha")


def test_damaged_downloads(narrow: str, cache: Path, tmp_path: Path):
    data = (tmp_path / "source.pth").read_bytes()
    (tmp_path / "source.pth").write_bytes(data[:-1] + b"?")
    with pytest.raises(DataError, match=rf"{narrow}: cannot be downloaded \(invalid hash.*by hand"):
        pretrained_backbone([narrow], "resnet18_w32")
    assert list(cache.iterdir()) == []
    (cache / f"{narrow}.pth").write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"is damaged, its sha256 does not begin with .*; remove it"):
        pretrained_backbone([narrow], "resnet18_w32")


def test_without_a_network(cli, tiny_data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(NAMED, "resnet50-19c8e357", "http://127.0.0.1:9/resnet50-19c8e357.pth")
    result = train(cli, tiny_data, "simplebaseline", "--backbone", "resnet50", "--pretrained", "resnet50-19c8e357")
    refused(result, DATA, "cannot be downloaded", "127.0.0.1:9", str(cache / "resnet50-19c8e357.pth"), "by hand")
    assert list(cache.iterdir()) == []


def test_without_a_known_address(cli, tiny_data: Path, cache: Path):
    words = ("--backbone", "hrnet_w32", "--pretrained", "hrnet_w32-36af842e")
    path = cache / "hrnet_w32-36af842e.pth"
    refused(
        train(cli, tiny_data, "hrnet", *words), DATA, "download hrnet_w32-36af842e.pth by hand", f"put it at {path}"
    )


def test_named_file_of_another_backbone_is_not_fetched(cache: Path):
    with pytest.raises(DataError, match="no weights of hrnet_w32 among those given; resnet50-19c8e357 is resnet50"):
        pretrained_backbone(["resnet50-19c8e357"], "hrnet_w32")
    assert not cache.exists()


def test_misspelt_name(cli, tiny_data: Path):
    result = train(cli, tiny_data, "hrnet", "--pretrained", "hrnet_w32")
    refused(result, DATA, "--pretrained hrnet_w32: no such file", "known names: hrnet_w32-36af842e")


@pytest.mark.parametrize(("start", "differs"), [("imagenet x-12345678, sha256:12345678aa", False),
                                                ("pretrained imagenet.pth, sha256:12345678aa", True)])  # fmt: skip
def test_imagenet_is_what_papers_start_from(cli, tiny_data: Path, trained: Path, start: str, differs: bool):
    result = cli("eval", "hrnet", "--data", tiny_data, *QUICK, *PLAIN, "--runs", trained, "-q")
    assert result.exit_code == 0, result.stderr
    (record,) = read_records(Path("results"))
    assert record.training is not None
    record = record.model_copy(update={"training": record.training.model_copy(update={"start": start})})
    row = find(("HRNet",), "hrnet_w32", Size(64, 48))
    assert row is not None
    listed = comparison(row, record)["protocol_differs"]
    assert any(text.startswith("start:") for text in listed) == differs
