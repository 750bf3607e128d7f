"""A method is three parts: model, codec, stages. Loading, listing and describing them.

Built-in methods are the files of `lrbench/methods/`; a file's name is the method's name. Others come from wheels with
an entry point in the group ``lrbench.methods``, or from a file (`load_plugin`).
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from lrbench.geometry import Alignment, Frame, Size, enlarged_size
from lrbench.models.backbones import BACKBONES
from lrbench.models.network import PoseNetwork, count_macs, count_parameters
from lrbench.structures import COCO, Batch, Keypoints, Rescoring, Skeleton, unknown

P = TypeVar("P")


class Codec(Protocol[P]):
    """Encoding, decoding and mirroring, in one object because they must be each other's inverse."""

    def encode(self, keypoints: Tensor, visible: Tensor) -> tuple[P, Tensor]:
        """Crop px (B, K, 2), visible (B, K) -> the ideal prediction and its weight (B, K)."""

    def decode(self, prediction: P) -> Keypoints:
        """Prediction -> crop px and scores."""

    def unflip(self, prediction: P, order: Tensor) -> P:
        """Undo a mirrored input; `order` (K,) exchanges left and right."""

    def average(self, plain: P, unflipped: P) -> P:
        """The flip test's mean of two predictions of the same crops; papers differ in what they average."""


BESIDE: Mapping[str, Any] = {"beside": True}
"""Metadata of fields that `describe` leaves out: where something lies, not what it is."""

Loss = Callable[..., Mapping[str, Tensor]]
"""(prediction, ideal, weight (B, K)) -> named terms; the training loop adds them."""


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[P]):
    """One stretch of the schedule.

    Attributes:
        epochs: in the paper's recipe; other recipes keep the proportion between stages.
        loss: of this stretch.
        learning_rate: at its start.
        milestones: epochs of this stage from which the rate is divided by ten, counted from its start.
        train_only: prefixes of the parameters that train; empty means all.
        learned: the loss has parameters of its own; they live in the network, which is handed to it as ``network=``.
    """

    epochs: int
    loss: Loss
    learning_rate: float = 1e-3
    milestones: tuple[int, ...] = ()
    train_only: tuple[str, ...] = ()
    learned: bool = False

    def terms(self, network: nn.Module, prediction: P, ideal: P, weight: Tensor) -> Mapping[str, Tensor]:
        """The named terms of the loss.

        Args:
            network: that made the prediction.
            prediction, ideal: of a batch.
            weight: (B, K).
        """
        own = {"network": network} if self.learned else {}
        return self.loss(prediction, ideal, weight, **own)


@dataclass(frozen=True, kw_only=True)
class Method(Generic[P]):
    """Everything that distinguishes one paper from another.

    Attributes:
        name: on the command line.
        paper: citation.
        backbone: name of the backbone; empty for methods without a network.
        frame: crop size and alignment rule, shared by crop and codec.
        codec: targets and decoding.
        build_model: makes the untrained network; takes ``keypoints=`` where there are not COCO's 17.
        stages: the paper's schedule.
        batch: the paper's batch size.
        settings: every argument of `build` as it was resolved.
        rescoring: how keypoint scores become the score of a person.
        upscaling: what enlarges the crops before the network, see `lrbench.upscaling.Upscaling`; None for nothing.
        skeleton: whose keypoints are estimated.
        estimate: fits a network without gradients, from unaugmented training batches; used where there are no stages.
    """

    name: str
    paper: str
    backbone: str
    frame: Frame
    codec: Codec[P]
    build_model: Callable[..., PoseNetwork[P]]
    stages: tuple[Stage[P], ...]
    batch: int = 128
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rescoring: Rescoring = dataclasses.field(default_factory=Rescoring)
    upscaling: Any = None
    skeleton: Skeleton = COCO
    estimate: Callable[[PoseNetwork[P], Iterable[Batch]], None] | None = None


@dataclass(frozen=True)
class Listing:
    """One line of `lrbench ls methods`.

    Attributes:
        name: on the command line.
        summary: first line of what the method says of itself.
        paper: citation.
        source: ``built-in``, a distribution with its version, or ``file``.
        error: why it cannot be loaded, or None.
    """

    name: str
    summary: str
    paper: str
    source: str
    error: str | None = None


_plugins: dict[str, ModuleType] = {}


def load_plugin(path: Path) -> str:
    """Import a method from a file; its stem becomes the method's name.

    Raises:
        ValueError: no such file, it does not import, or it has no `build`.
    """
    if not path.is_file():
        raise ValueError(f"plugin {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"lrbench_plugin_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"plugin {path}: does not import ({type(error).__name__}: {error})") from error
    if not callable(getattr(module, "build", None)):
        raise ValueError(f"plugin {path}: defines no function build(size, backbone, ...) -> Method")
    _plugins[path.stem] = module
    return path.stem


def method_names() -> list[str]:
    """Names of all methods, built-in first."""
    return list(_sources())


def list_methods() -> list[Listing]:
    """All methods; one that cannot be imported is listed with its error."""
    rows = []
    for name, (source, load) in _sources().items():
        try:
            module = load()
            summary = (inspect.getdoc(module) or "").split("\n", 1)[0].strip()
            rows.append(Listing(name, summary, getattr(module, "PAPER", ""), source))
        except Exception as error:  # a broken plugin is a row with its error, never a crash
            rows.append(Listing(name, "", "", source, f"{type(error).__name__}: {error}"))
    return rows


def load_method(
    name: str,
    size: Size | tuple[int, int] = (64, 48),
    backbone: str | None = None,
    sr: Any = None,
    *,
    align: Alignment | None = None,
    skeleton: Skeleton = COCO,
    **settings: Any,
) -> Method[Any]:
    """Compose a method.

    Args:
        name: one of `method_names`.
        size: height and width of the crop, px.
        backbone: one of `BACKBONES`; None for the paper's, HRNet-W32 for most.
        sr: upscaler in front of the network: a name, a file of weights, or an `lrbench.upscaling.Upscaling`; None for
            none. The network then takes crops enlarged by its scale, 4 unless it says otherwise.
        align: rule of the crop; None for the method's own. Keypoints of any crop are px of it, so the method reads
            crops of another rule as exactly as its own.
        skeleton: whose keypoints are estimated.
        settings: arguments of the method's `build`.

    Raises:
        ValueError: an unknown name or setting, or a combination the network cannot take.
    """
    size = size if isinstance(size, Size) else Size(*size)
    module = _module(name)
    parameters = inspect.signature(module.build).parameters
    takes_backbone = "backbone" in parameters
    backbone = backbone or default_backbone(name)
    if takes_backbone and backbone not in BACKBONES:
        raise ValueError(unknown("backbone", backbone, BACKBONES))
    allowed = [p for p in parameters if p not in ("size", "backbone")]
    for key in settings:
        if key not in allowed:
            raise ValueError(unknown(f"setting of {name}", key, allowed))
    choice = None
    if sr not in (None, "", "none"):
        from lrbench.upscaling import Upscaling, upscaling  # it builds on this module

        choice = sr if isinstance(sr, Upscaling) else upscaling(str(sr))
    large = size if choice is None else enlarged_size(size, choice.scale)
    arguments = {"size": large, **({"backbone": backbone} if takes_backbone else {}), **settings}
    method = module.build(**arguments)
    if skeleton != COCO:
        build_model = partial(method.build_model, keypoints=len(skeleton))
        method = dataclasses.replace(method, build_model=build_model, skeleton=skeleton)
    if choice is not None and not method.stages:
        raise ValueError(f"method {name} looks at no pixels, so there is nothing to enlarge; leave the upscaler out")
    frame = Frame(size, align or method.frame.align)
    if choice is None:
        method = dataclasses.replace(method, frame=frame)
    else:
        from lrbench.upscaling import before

        method = before(method, frame, choice)
    resolved = {k: settings.get(k, parameters[k].default) for k in allowed} | dict(method.settings)
    return typing.cast(
        Method[Any],
        dataclasses.replace(method, name=name, backbone=backbone if takes_backbone else "", settings=resolved),
    )


def default_backbone(name: str, *, narrow: bool = False) -> str:
    """The backbone of a method's paper; empty for methods without a network.

    Args:
        name: of the method.
        narrow: its stand-in for processors instead.

    Raises:
        ValueError: unknown method.
    """
    parameter = inspect.signature(_module(name).build).parameters.get("backbone")
    if parameter is None:
        return ""
    own = str(parameter.default)
    return BACKBONES[own].narrow if narrow else own


def setting_names(name: str) -> list[str]:
    """Keys that ``--set`` takes for a method.

    Raises:
        ValueError: unknown method.
    """
    return [p for p in inspect.signature(_module(name).build).parameters if p not in ("size", "backbone")]


def parse_settings(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts by the annotations of a method's `build`.

    Raises:
        ValueError: no equals sign, an unknown key, or a value of the wrong kind.
    """
    allowed = setting_names(name)
    hints = typing.get_type_hints(_module(name).build)
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: expected KEY=VALUE, for example {allowed[0] if allowed else 'key'}=1")
        if key not in allowed:
            raise ValueError(unknown(f"setting of {name}", key, allowed))
        settings[key] = _parse(key, value, hints[key])
    return settings


def _parse(key: str, text: str, hint: Any) -> Any:
    options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if text not in options:
            raise ValueError(f"--set {key}={text}: expected one of {', '.join(map(str, options))}")
        return text
    kinds = [k for k in (options or (hint,)) if k is not type(None)]
    if type(None) in options and text.lower() == "none":
        return None
    if bool in kinds:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--set {key}={text}: expected true or false")
        return text.lower() == "true"
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal and text in typing.get_args(kind):
            return text
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                continue
    raise ValueError(f"--set {key}={text}: expected {getattr(hint, '__name__', hint)}")


def source_file(name: str) -> Path:
    """The file that defines a method."""
    return Path(inspect.getfile(_module(name)))


def reported_labels(name: str) -> tuple[str, ...]:
    """Names under which papers report a method with its usual settings; empty where it has none or is unknown."""
    labels = reported_settings(name)
    if not labels:
        return ()
    usual = {key: p.default for key, p in inspect.signature(_module(name).build).parameters.items()}
    return tuple(label for label, given in labels.items() if all(usual.get(k) == v for k, v in given.items()))


def reported_settings(name: str) -> dict[str, dict[str, Any]]:
    """Names under which papers report a method, and the settings each stands for; empty where it has none.

    A method's file says so in `REPORTED`: a tuple of names, or a mapping from names to settings.
    """
    labels = getattr(_module(name), "REPORTED", ()) if name in _sources() else ()
    if isinstance(labels, Mapping):
        return {label: dict(settings) for label, settings in labels.items()}
    return {label: {} for label in labels}


def describe(method: Method[Any]) -> dict[str, Any]:
    """Every number of a method: settings, and its parts taken apart. Plain JSON values."""
    return {
        "settings": {k: plain(v) for k, v in method.settings.items()},
        "frame": plain(method.frame),
        "codec": plain(method.codec),
        "model": plain(method.build_model),
        "stages": [plain(stage) for stage in method.stages],
        "batch": method.batch,
        "rescoring": plain(method.rescoring),
        **({} if method.upscaling is None else {"upscaling": plain(method.upscaling)}),
    }


def costs(method: Method[Any]) -> tuple[int, int]:
    """Parameters and multiply-adds (one crop, no flip) of the method's pose network; see also `upscaler_costs`."""
    model = method.build_model()
    model.front = None
    size = method.frame.size
    return count_parameters(model), count_macs(model, enlarged_size(size, _scale(method)))


def upscaler_costs(method: Method[Any]) -> tuple[int, int]:
    """The same of the upscaler in front of it; zeros where there is none."""
    if method.upscaling is None:  # the pose network need not be built to say so
        return 0, 0
    front = method.build_model().front
    assert front is not None
    return count_parameters(front), count_macs(front, method.frame.size)


def _scale(method: Method[Any]) -> int:
    return 1 if method.upscaling is None else int(method.upscaling.scale)


def plain(value: Any) -> Any:
    """A part as JSON values: dataclasses by field, partials by function and arguments, functions by name."""
    if isinstance(value, Size):
        return str(value)
    if isinstance(value, partial):
        arguments = {k: plain(v) for k, v in value.keywords.items()}
        return {"function": plain(value.func), **({"positional": plain(value.args)} if value.args else {}), **arguments}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.metadata != BESIDE}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def _sources() -> dict[str, tuple[str, Callable[[], Any]]]:
    from lrbench import methods

    found: dict[str, tuple[str, Callable[[], Any]]] = {}
    for info in pkgutil.iter_modules(methods.__path__):
        found[info.name] = ("built-in", partial(importlib.import_module, f"{methods.__name__}.{info.name}"))
    for point in entry_points(group="lrbench.methods"):
        dist = f"{point.dist.name} {point.dist.version}" if point.dist else "entry point"
        found.setdefault(point.name, (dist, point.load))
    for name, module in _plugins.items():
        found[name] = ("file", partial(_identity, module))
    return found


def _module(name: str) -> Any:
    """The module of a method; a name nobody has, or a module that does not import, is a ValueError."""
    sources = _sources()
    if name not in sources:
        raise ValueError(unknown("method", name, sources))
    try:
        return sources[name][1]()
    except Exception as error:  # a plugin may raise anything
        raise ValueError(f"method {name} cannot be loaded ({type(error).__name__}: {error})") from error


def _identity(module: ModuleType) -> ModuleType:
    return module
