"""Weights: files of tensors, read safely and given to networks by name, with a word on what was used and what was not.

Released files spell the same layer in several ways; `LAYOUTS` lists them. File and network are read in the pair of
layouts in which most tensors agree in name and shape. What a file has to hold depends on what it is for:

* weights to score (`load_weights`): every tensor of the network, and nothing else but classifiers and what the network
  itself calls ``left_over``;
* a backbone to begin with (``--pretrained``, `pretrained_backbone`): the first layers of just that backbone; heads and
  classifiers are not taken, as in the papers, so that no method of a comparison finds its own head;
* weights to begin with (``--start``): anything that fits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrbench.datasets import cache_folder
from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.models.backbones import BACKBONES

LAYOUTS: tuple[tuple[str, ...], ...] = ((), ("backbone.", "keypoint_head.", "head."), ("preact.",))
"""Prefixes of a trunk and of what stands on it: none (most released files, ImageNet's too), mmpose's, and the one of
the released RLE code. ``module.`` (`torch.nn.DataParallel`) may stand before any of them."""

CONTAINERS = ("state_dict", "model", "network", "params_ema", "params")
"""Keys under which checkpoints keep their tensors; what lies beside them (epoch, optimiser) is not looked at."""

CLASSIFIER = re.compile(r"(backbone\.|preact\.)?(fc|classifier|incre_modules|downsamp_modules)\.")
"""Layers of ImageNet classifiers (ResNet; HRNet), which no pose network has."""

NAMED: dict[str, str | None] = {
    "hrnet_w32-36af842e": None,
    "hrnet_w48-8ef0771d": None,
    "resnet50-19c8e357": "https://download.pytorch.org/models/resnet50-19c8e357.pth",
    "resnet101-5d3b4d8f": "https://download.pytorch.org/models/resnet101-5d3b4d8f.pth",
    "resnet152-b121ed2d": "https://download.pytorch.org/models/resnet152-b121ed2d.pth",
}
"""ImageNet weights that the papers start from: backbone, first digits of the file's sha256, address where it is known.

HRNet's are linked from its authors' model zoo (HRNet/HRNet-Image-Classification), whose addresses are not stable.
"""


@dataclass(frozen=True)
class Fit:
    """What a file has for a network.

    Attributes:
        used: name in the network -> name in the file.
        reshaped: the same, of tensors that the file has in another shape.
        missing: tensors of the network without a counterpart. Batch norms' step counters are never missed: files older
            than torch 0.4.1 have none, and nothing reads them.
        left: tensors of the file without a counterpart.
    """

    used: Mapping[str, str]
    reshaped: Mapping[str, str]
    missing: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        others = {"missing": self.missing, "of another shape": self.reshaped.values(), "left over": self.left}
        counts = [f"{len(names):,} {word}{_examples(names)}" for word, names in others.items()]
        return ", ".join([f"{len(self.used):,} tensors used", *counts])


@dataclass(frozen=True)
class Start:
    """Weights to begin a training with.

    Attributes:
        name: in records.
        label: for people; empty for none.
        tensors: of the file, by its names.
        allowed: those of them that may be used; None for all.
    """

    name: str = "scratch"
    label: str = ""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    allowed: Collection[str] | None = None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of a torch checkpoint that loads without running code.

    Raises:
        DataError: missing, damaged, anything that would have to run code to be loaded, or other things than tensors.
    """
    if not path.is_file():
        raise DataError(f"weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors and torch raise many kinds for damaged or unsafe files
        first = str(error).split("\n", 1)[0]
        raise DataError(f"weights {path}: refused, not a file of tensors ({first})") from None
    if isinstance(loaded, Mapping):
        loaded = next((loaded[key] for key in CONTAINERS if isinstance(loaded.get(key), Mapping)), loaded)
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"weights {path}: refused, holds other things than named tensors")
    return {str(name).removeprefix("module."): value.detach() for name, value in loaded.items()}


def match(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], allowed: Collection[str] | None = None) -> Fit:
    """Find which tensor of a file is which of a network: by the pair of layouts under which most fit.

    Args:
        state: of the network.
        tensors: of the file.
        allowed: names in the file that may be used; None for all.
    """
    used: dict[str, str] = {}
    reshaped: dict[str, str] = {}
    for theirs in LAYOUTS:
        bare = {_bare(name, theirs): name for name in tensors if allowed is None or name in allowed}
        for ours in LAYOUTS:
            named = {name: bare[plain] for name in state if (plain := _bare(name, ours)) in bare}
            fitting = {name: file for name, file in named.items() if state[name].shape == tensors[file].shape}
            if (len(fitting), len(named)) > (len(used), len(used) + len(reshaped)):
                used, reshaped = fitting, {name: file for name, file in named.items() if name not in fitting}
    missing = (n for n in state if n not in used and n not in reshaped and not n.endswith("num_batches_tracked"))
    known = {*used.values(), *reshaped.values()}
    return Fit(used, reshaped, tuple(missing), tuple(name for name in tensors if name not in known))


def copy_matching(network: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Copy the tensors that a network has under the same name, in whatever layout, and in the same shape."""
    fit = match(network.state_dict(), tensors)
    network.load_state_dict(renamed(tensors, fit), strict=False)
    return fit


def renamed(tensors: Mapping[str, Tensor], fit: Fit) -> dict[str, Tensor]:
    """The tensors of a file that are used, by the network's names."""
    return {name: tensors[file] for name, file in fit.used.items()}


def load_weights(network: nn.Module, path: Path, method: str) -> Fit:
    """Load a file into a network; nothing of the network may be missing, and nothing of the file without a reason.

    Args:
        network: may have an attribute `left_over`: patterns (see `fnmatch`) of tensors that released files hold and
            that nothing reads.
        path: of the file.
        method: for the message.

    Raises:
        DataError: names or shapes differ, so the file belongs to another method, backbone or size.
    """
    tensors = read_weights(path)
    fit = match(network.state_dict(), tensors)
    unread = _unread(network, fit)
    if fit.reshaped or fit.missing or unread:
        example = (*fit.reshaped, *fit.missing, *unread)[0]
        raise DataError(
            f"weights {path}: do not fit {method} as asked for ({len(fit.missing)} tensors missing, {len(unread)} "
            f"unknown, {len(fit.reshaped)} of another shape, for example {example}); check method, backbone, size and "
            "settings"
        )
    network.load_state_dict(renamed(tensors, fit), strict=False)
    return fit


def fits(network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Whether `load_weights` would take these tensors for this network."""
    fit = match(network.state_dict(), tensors)
    return not (fit.reshaped or fit.missing or _unread(network, fit))


def stating(network: nn.Module, about: Mapping[str, Any]) -> bytes:
    """A file of a network's weights that says what they are of; `stated` reads it."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    # one entry: safetensors writes several in random order, and equal weights shall be equal files
    return save(tensors, {"lrbench": json.dumps(about)})


def stated(path: Path) -> dict[str, Any]:
    """What our runs write into a file of weights: what they are of; empty for other files."""
    if path.suffix == ".safetensors" and path.is_file():
        from safetensors import SafetensorError, safe_open

        with suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("lrbench", "{}"))
            return about if isinstance(about, dict) else {}
    return {}


def stated_size(path: Path) -> str | None:
    """The crop's size ``HxW`` that a file of weights states: in what our runs write into it, or else in its name."""
    if size := stated(path).get("res"):
        return str(size)
    named = re.search(r"(?<!\d)(\d{2,3}x\d{2,3})(?!\d)", path.stem)
    return named[1] if named else None


def started_from(path: Path) -> Start:
    """Any weights, of which everything may be used (``--start``).

    Raises:
        DataError: see `read_weights`.
    """
    if not path.is_file():
        raise DataError(f"--start {path}: no such file")
    return Start(_hashed(path.read_bytes()), f"--start {path}", read_weights(path))


def pretrained_backbone(given: Sequence[str], backbone: str) -> Start:
    """The one of several files that holds a backbone; of it, the backbone's own layers (``--pretrained``).

    Args:
        given: paths, or names of `NAMED`.
        backbone: name; empty for a network that is none of ours, which takes what fits of the first file.

    Raises:
        DataError: none of them holds that backbone, one cannot be read, or a named one cannot be had.
    """
    reason = ""
    for text in given:
        if text in NAMED and backbone and text.partition("-")[0] != backbone:
            reason = f"{text} is {text.partition('-')[0]}"
            continue
        path = named_file(text) if text in NAMED else Path(text)
        if not path.is_file():
            raise DataError(f"--pretrained {text}: no such file; known names: {', '.join(NAMED)}")
        tensors = read_weights(path)
        allowed, reason = _layers(tensors, backbone) if backbone else (None, "")
        if not reason:
            return Start(_source(path), f"--pretrained {text}", tensors, allowed)
        reason = f"{text} {reason}"
    raise DataError(f"--pretrained: no weights of {backbone} among those given; {reason}")


def shipped(backbone: str) -> Start:
    """The shipped trunk of a backbone; from scratch where there is none."""
    tensors, data = pretrained(backbone), pretrained_file(backbone)
    if tensors is None or data is None:
        return Start()
    return Start(f"shipped trunk, {_hashed(data)}", "shipped trunk", tensors)


def named_file(name: str) -> Path:
    """A file of `NAMED`: from the cache folder, else downloaded into it; its checksum is verified.

    Raises:
        DataError: it is damaged, or cannot be downloaded; the message says what to fetch by hand, and where to put it.
    """
    path, url, digits = cache_folder() / "pretrained" / f"{name}.pth", NAMED[name], name.rpartition("-")[2]
    if path.is_file():
        if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits):
            raise DataError(
                f"--pretrained {name}: {path} is damaged, its sha256 does not begin with {digits}; remove it"
            )
        return path
    if url is None:
        raise DataError(
            f"--pretrained {name}: not at hand; download {name}.pth by hand (linked in the README of "
            f"github.com/HRNet/HRNet-Image-Classification or of the pose HRNet) and put it at {path}, or give its path"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digits, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # no network; broken off; another checksum
        raise DataError(
            f"--pretrained {name}: cannot be downloaded ({error}); put {url} at {path} by hand, or give its path"
        ) from None
    return path


def pretrained(backbone: str) -> dict[str, Tensor] | None:
    """The shipped starting weights of a backbone, or None where there are none."""
    data = pretrained_file(backbone)
    if data is None:
        return None
    from safetensors.torch import load

    return {k: v.float() if v.is_floating_point() else v for k, v in load(data).items()}


def pretrained_file(backbone: str) -> bytes | None:
    """The shipped file itself, for its hash."""
    resource = files("lrbench.models") / "pretrained" / f"{backbone}.safetensors"
    return resource.read_bytes() if resource.is_file() else None


def _unread(network: nn.Module, fit: Fit) -> list[str]:
    """Tensors of a file that nothing reads and that are left over for no known reason."""
    patterns: Sequence[str] = getattr(network, "left_over", ())
    return [n for n in fit.left if not CLASSIFIER.match(n) and not any(fnmatchcase(n, p) for p in patterns)]


def _layers(tensors: Mapping[str, Tensor], backbone: str) -> tuple[set[str], str]:
    """Names in a file of a backbone's own layers, and why the file is not of that backbone; empty if it is.

    The first layers decide, in which all networks on a backbone agree: those that could be shipped.
    """
    spec = BACKBONES[backbone]
    with torch.device("meta"):  # only names and shapes are wanted
        state = spec.pyramid(Size(256, 192)).state_dict()
    fit = match(state, tensors)
    missing = [n for n in (*fit.reshaped, *fit.missing) if n.split(".")[0] in spec.shipped]
    prefixes = [prefix for layout in LAYOUTS for prefix in layout]
    more = [n for n in fit.left if _bare(n, prefixes).split(".")[0] in spec.shipped]
    if not missing and not more:
        return set(fit.used.values()), ""
    counts = f"{len(missing)} tensors missing or of another shape, {len(more)} too many{_examples(missing or more)}"
    return set(), f"has other first layers: {counts}"


def _source(path: Path) -> str:
    """``imagenet NAME`` for a file of `NAMED`, whatever it is called now, else ``pretrained FILE``; with its hash."""
    digest = _hashed(path.read_bytes())
    known = (name for name in NAMED if digest.startswith(f"sha256:{name.rpartition('-')[2]}"))
    name = next(known, None)
    return f"imagenet {name}, {digest}" if name else f"pretrained {path.name}, {digest}"


def _hashed(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()[:16]}"


def _bare(name: str, prefixes: Sequence[str]) -> str:
    """A name without the first of some prefixes that it has."""
    return name[len(next((p for p in prefixes if name.startswith(p)), "")) :]


def _examples(names: Collection[str]) -> str:
    """`` (a, b, ...)``: the first names."""
    first = list(names)[:2]
    return f" ({', '.join(first)}{', ...' if len(names) > len(first) else ''})" if first else ""
