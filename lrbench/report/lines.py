"""Lines of figures: which records one line joins, and what its label says.

A line joins records that differ in nothing but the seed and what its figure varies: the size of the crop, the severity
of a degradation, or the height of the persons. Everything else that decides a number is a component of the line.
Components in which the lines of a figure differ stand in their labels, shared ones in the figure's text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

from lrbench.degradation import load_preset
from lrbench.geometry import Size
from lrbench.recipes import RECIPES, load_recipe
from lrbench.records import Protocol, Record, Training
from lrbench.report.reported import abbreviated, degradation_in_words
from lrbench.structures import Rescoring

X = TypeVar("X", Size, int, str)

PLAIN = 0
"""Place of plain crops and plain copies among the severities, which begin at 1."""

TRAINING = ("trained on", "training data hash")
"""Kinds of components that say what weights were trained on."""

OF_NETWORKS = ("backbone", "epochs", "start", "trained on")
"""Kinds that are empty for methods without a network or training; empty words of other kinds are the usual case."""


@dataclass(frozen=True)
class Line:
    """Records that differ in nothing but seed and place on the x axis.

    Attributes:
        method: its name.
        components: kind of difference -> its words, everything else that decides a number.
        records: one per place and seed.
        superseded: how many more there are, earlier ones of the same places and seeds.
    """

    method: str
    components: Mapping[str, str]
    records: tuple[Record, ...]
    superseded: int = 0

    def points(self, place: Callable[[Record], X]) -> dict[X, list[Record]]:
        """Records by their place on the x axis, in its order; several of one place are of several seeds."""
        points: dict[X, list[Record]] = {}
        for record in self.records:
            points.setdefault(place(record), []).append(record)
        return dict(sorted(points.items()))


@dataclass(frozen=True)
class Sweep:
    """What a figure varies instead of the size of the crop.

    Attributes:
        word: for it, in labels.
        place: of a record on the x axis.
        follows: kinds of components that go with the place, and so divide no line.
    """

    word: str
    place: Callable[[Record], int]
    follows: tuple[str, ...]


def size_of(record: Record) -> Size:
    """Of the crop, for records that have one."""
    return Size.parse(record.call.res)


def crop_preset(record: Record) -> tuple[str, int]:
    """Preset that cut the crops, ``paper`` where none is kept, and its severity, `PLAIN` without."""
    crop = record.protocol.degradation.get("crop") or "paper"
    return (str(crop["name"]), int(crop.get("severity") or PLAIN)) if isinstance(crop, Mapping) else (str(crop), PLAIN)


def copy_note(record: Record) -> Mapping[str, Any]:
    """What `lrbench degrade` wrote into the scored data; empty for data that is no copy."""
    note: Mapping[str, Any] = record.protocol.degradation.get("dataset") or {}
    return note


def copy_preset(record: Record) -> tuple[str, int]:
    """Preset that made the scored copy, empty for no copy, and its severity, `PLAIN` without."""
    note = copy_note(record)
    return str(note.get("preset", "")), int(note.get("severity") or PLAIN)


def copy_amount(record: Record) -> str:
    """How small a copy is: ``scale 4``, ``size 64x48`` or ``height 48``; empty for no copy."""
    note = copy_note(record)
    given = {name: note[name] for name in ("scale", "size", "height") if note.get(name)}
    return ", ".join(f"{name} {value}" for name, value in _flat(given).items())


def crop_severity(record: Record) -> int:
    """Of the preset that cut the crops."""
    return crop_preset(record)[1]


def copy_severity(record: Record) -> int:
    """Of the preset that made the scored copy."""
    return copy_preset(record)[1]


def copy_height(record: Record) -> int:
    """Of the persons in a copy of level ``height``, px."""
    return int(copy_note(record)["height"])


CROP_SEVERITY = Sweep("severity", crop_severity, ("crops", "severity", "trained pixels"))
COPY_SEVERITY = Sweep("severity", copy_severity, ("copy", "copy severity", "data hash", "trained pixels", *TRAINING))
COPY_HEIGHT = Sweep("height", copy_height, ("copy height", "data hash", "trained pixels", *TRAINING))


def lines_of(records: Iterable[Record]) -> list[Line]:
    """Group records into lines over size; of several with the same seeds at the same size the latest counts.

    Settings of a method may follow the crop's size, so they divide a line only where they differ at one size.
    """
    lines = []
    for method, components, members in _alike(records, follows=()):
        lines.append(_line(method, components, members, lambda record: record.call.res))
    return sorted(lines, key=_order)


def lines_over(sweep: Sweep, records: Iterable[Record]) -> list[Line]:
    """Group records of one crop size into lines over severity or height.

    Records do not say which degradation weights were trained for, only whether two have the same weights. So there are

    * ``one network``: what was scored at several places, of each seed one. Nothing says which network of one seed
      belongs to which of another, so where a seed has two, each of them all is a line of its own.
    * ``trained at each severity``: of each seed and place one network, which was scored at no other.
    * ``scored at one severity``: any other network, a point of its own.

    A plain point belongs to the network that was scored; in a line with a network at each severity, to one that was
    scored at no severity.

    Args:
        sweep: what varies.
        records: of one preset; those of plain crops, at place `PLAIN`, among them.
    """
    lines = []
    for method, components, members in _alike(records, follows=sweep.follows):
        for role, weights, own in _networks(members, sweep):
            trained = {kind: _common(kind, own) for kind in TRAINING if kind in sweep.follows}
            words = {**components, **trained, "weights": role, "weights hash": weights}
            lines.append(_line(method, words, own, sweep.place))
    return sorted(lines, key=_order)


def at_one_size(line: Line) -> Line:
    """A line whose records are of one size, told with the epochs that were run there."""
    epochs = {record.training.epochs for record in line.records if record.training is not None}
    if not line.components["epochs"] or len(epochs) != 1:
        return line
    return replace(line, components={**line.components, "epochs": _counted_epochs(epochs.pop())})


def line_labels(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Labels of lines, and what all lines share.

    Returns:
        One label per line: the method, and every component in which any two lines of the figure differ; hashes only
        where nothing else tells two lines apart. And the words of the components that all lines share.
    """
    kinds = [kind for kind in lines[0].components if not kind.endswith("hash")]
    hashes = [kind for kind in lines[0].components if kind.endswith("hash")]
    shown: list[str] = []
    shared: list[str] = []
    for kind in kinds:
        values = {line.components[kind] for line in lines} - ({""} if kind in OF_NETWORKS else set())
        if len(values) > 1 or kind in ("settings", "weights"):
            shown.append(kind)
        elif kind != "split":  # the title names the split
            shared += filter(None, values)
    for kind in hashes:
        if len({_told(line, [*shown, kind]) for line in lines}) > len({_told(line, shown) for line in lines}):
            shown.append(kind)
    labels = [", ".join(word for word in _told(line, shown) if word) for line in lines]
    return labels, shared


def shape_of(size: Size) -> str:
    """Height to width in lowest terms: 4:3."""
    ratio = Fraction(size.height, size.width)
    return f"{ratio.numerator}:{ratio.denominator}"


def _told(line: Line, kinds: Sequence[str]) -> tuple[str, ...]:
    """What a label with these components says of a line."""
    return (line.method, *(line.components[kind] for kind in kinds))


def _order(line: Line) -> tuple[str, ...]:
    return (line.method, *line.components.values())


def _alike(records: Iterable[Record], *, follows: Sequence[str]) -> list[tuple[str, dict[str, str], list[Record]]]:
    """Records by method, components and settings; kinds of components that follow the place are left out."""
    by_protocol: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        components = tuple((kind, words) for kind, words in _components(record).items() if kind not in follows)
        by_protocol.setdefault((record.call.name, components), []).append(record)
    groups = []
    for (method, components), members in by_protocol.items():
        varying = _varying_settings(members)
        by_settings: dict[str, list[Record]] = {}
        for record in members:
            settings = _settings(record) if varying else {}
            words = ", ".join(f"{n}={settings[n]}" if n in settings else f"no {n}" for n in varying)
            by_settings.setdefault(words, []).append(record)
        groups += [(method, {**dict(components), "settings": words}, own) for words, own in by_settings.items()]
    return groups


def _line(
    method: str, components: Mapping[str, str], records: Sequence[Record], place: Callable[[Record], object]
) -> Line:
    """A line of the latest record of each place and seeds: of training, and of the degradations of crops and copy."""
    latest: dict[tuple[object, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.provenance.utc, r.key)):
        drawn = (record.protocol.degradation.get("seed"), copy_note(record).get("seed"))
        latest[place(record), record.provenance.seed, *drawn] = record
    return Line(method, components, tuple(latest.values()), len(records) - len(latest))


def _networks(records: Iterable[Record], sweep: Sweep) -> list[tuple[str, str, list[Record]]]:
    """Records by what `lines_over` says of their networks, with the weights' name where a line is of one of several."""
    networks: dict[str, list[Record]] = {}
    for record in records:
        networks.setdefault(_weights(record), []).append(record)
    places = {weights: {sweep.place(record) for record in own} - {PLAIN} for weights, own in networks.items()}
    several: dict[tuple[str, ...], list[str]] = {}
    single: dict[tuple[int | None, tuple[str, ...]], list[str]] = {}
    for weights, own in networks.items():
        if len(places[weights]) > 1:
            several.setdefault(_trained_on(own[0]), []).append(weights)
        else:
            # training data that is a copy like the scored one goes with the place too
            follows = "trained on" in sweep.follows and _trained_on_scored_data(own[0])
            single.setdefault((own[0].provenance.seed, () if follows else _trained_on(own[0])), []).append(weights)
    lines: list[tuple[str, str, list[Record]]] = []
    for members in several.values():
        seeds = [seed for weights in members for seed in {record.provenance.seed for record in networks[weights]}]
        if len(seeds) == len(set(seeds)):
            lines.append(("one network", "", [record for weights in members for record in networks[weights]]))
        else:
            lines += [("one network", weights, networks[weights]) for weights in members]
    each: dict[tuple[str, ...], list[Record]] = {}
    for (_, trained_on), members in single.items():
        scored = [weights for weights in members if places[weights]]
        taken = {place for weights in scored for place in places[weights]}
        if len(taken) > 1 and len(taken) == len(scored):
            swept = [record for weights in scored for record in networks[weights] if sweep.place(record) != PLAIN]
            plain = [record for weights in members if not places[weights] for record in networks[weights]]
            each[trained_on] = [*each.get(trained_on, []), *swept, *plain]
        else:
            lines += [(f"scored at one {sweep.word}", weights, networks[weights]) for weights in scored]
    return [*lines, *((f"trained at each {sweep.word}", "", own) for own in each.values())]


def _weights(record: Record) -> str:
    """Which weights were scored, in words: those of the network, and of the upscaler in front of it."""
    upscaler = str(_upscaling(record).get("sha256") or "")
    return f"weights {record.provenance.weights_sha256[:8]}" + (f" behind {upscaler[:8]}" if upscaler else "")


def _upscaling(record: Record) -> Mapping[str, Any]:
    """What stands in front of the network; empty for nothing."""
    choice: Mapping[str, Any] = record.settings.get("upscaling") or {}
    return choice


def _trained_on(record: Record) -> tuple[str, ...]:
    components = _components(record)
    return tuple(components[kind] for kind in TRAINING)


def _trained_on_scored_data(record: Record) -> bool:
    """Whether weights were trained on a split of the very dataset that is scored."""
    return record.training is not None and record.training.data.rpartition("/")[0] == record.protocol.dataset


def _common(kind: str, records: Sequence[Record]) -> str:
    """Words of a component of training that all records of a line share, or what is true of all."""
    values = {_components(record)[kind] for record in records}
    if len(values) == 1:
        return values.pop()
    return "on each copy's own training split" if kind == "trained on" else ""


def _components(record: Record) -> dict[str, str]:
    """Everything besides method, settings, size and seed that decides a number, in words; empty for not applicable."""
    protocol, training, call = record.protocol, record.training, record.call
    size = Size.parse(call.res) if call.res else None
    components = {
        "split": protocol.split,
        "boxes": "GT boxes" if protocol.boxes == "gt" else f"boxes from {protocol.boxes}",
        "flip": "flip test" if protocol.flip else "no flip test",
        **_degradation_components(record),
        "scoring": _scoring(protocol),
        "referee": f"scored by {protocol.referee}",
        "shape": f"crops {shape_of(size)}" if size else "",
        "backbone": call.backbone,
        "sr": "no upscaler" if call.sr in ("", "none") else f"upscaler {call.sr}",
        "pose": f"pose network {call.pose}" if call.pose else "",
        "boundary": "float pixels between" if _upscaling(record).get("boundary") == "float" else "",
        "training": "untrained",
        "epochs": "",
        "start": "",
        "trained on": "",
        "trained pixels": "",
    }
    if training is not None and training.recipe != "none":
        components |= {
            "training": f"recipe {training.recipe}",
            "epochs": _epochs(training, size),
            "start": f"from {abbreviated(training.start)}",
            "trained on": f"trained on {training.persons} persons of {training.data}",
            "trained pixels": _trained_pixels(record),
        }
    return components | {
        "data hash": f"data {protocol.data_hash[:8]}",
        "boxes hash": f"boxes {protocol.boxes_hash[:8]}" if protocol.boxes_hash else "",
        "training data hash": f"training data {training.data_hash[:8]}" if training else "",
    }


def _trained_pixels(record: Record) -> str:
    """What crops a network was trained on, where they were made in another way than the scored ones.

    A clean network behind an upscaler is one by its name.
    """
    trained, scored = record.training.degradation if record.training else {}, record.protocol.degradation.get("crop")
    if not trained or trained == scored or record.call.pose == "clean":
        return ""
    severity = f" severity {trained['severity']}" if trained.get("severity") else ""
    return f"trained on {trained['name']} crops{severity}"


def _degradation_components(record: Record) -> dict[str, str]:
    """How pixels were made: those of the crops, and those of the scored pictures where they are a copy."""
    crop, note = record.protocol.degradation.get("crop"), copy_note(record)
    (name, severity), (_, made_severity) = crop_preset(record), copy_preset(record)
    crops = degradation_in_words({"crop": name})
    rest = {key: value for key, value in note.items() if key not in ("severity", "height")}
    numbers = [_changed_numbers(preset) for preset in (crop, note.get("numbers")) if isinstance(preset, Mapping)]
    return {
        "crops": "plain crops" if crops == "paper" else f"pixels: {crops}",
        "severity": f"severity {severity}" if severity else "",
        "copy": degradation_in_words({"dataset": rest}) if note else "",
        "copy severity": f"images of severity {made_severity}" if made_severity else "",
        "copy height": f"persons {copy_height(record)} px high" if note.get("height") else "",
        "numbers": ", ".join(filter(None, numbers)),
    }


def _changed_numbers(preset: Mapping[str, Any]) -> str:
    """Numbers of a recorded preset that this version has otherwise, so that no line joins two meanings of a name."""
    try:
        own = load_preset(preset["name"], preset.get("severity")).plain
    except ValueError:  # of a plugin or of another version
        return ""
    # `surveillance` has another name where PyAV is missing, and other numbers
    known = {k: v for k, v in preset.items() if k in own and k != "sampling"} if own["name"] == preset["name"] else {}
    return ", ".join(f"{k}={v}" for k, v in known.items() if json.dumps(v) != json.dumps(own[k]))


POINTS = ("tiled", "False")
"""A setting of decoders that records gained later, and its value in those that lack it."""

USUAL_NMS = Protocol.model_fields["oks_nms"].default


def _scoring(protocol: Protocol) -> str:
    """How persons are scored and suppressed, where it is not the usual rule."""
    rule = Rescoring(protocol.rescoring, protocol.rescoring_form)
    words = "" if rule == Rescoring() else f"rescoring {rule.form} {rule.confident:g}"
    return ", ".join(filter(None, [words, "" if protocol.oks_nms == USUAL_NMS else f"NMS {protocol.oks_nms:g}"]))


def _epochs(training: Training, size: Size | None) -> str:
    """How long was trained, where it is not what the recipe itself has for the size."""
    own = training.numbers.get("epochs") is None
    if size is not None and training.recipe in RECIPES:
        own = own or load_recipe(training.recipe, size).epochs == training.epochs
    return "its own epochs" if own else _counted_epochs(training.epochs)


def _counted_epochs(epochs: int) -> str:
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _settings(record: Record) -> dict[str, str]:
    """Every number of method, decoder and recipe that may follow the size, nested ones by their path."""
    call = _flat(record.call.settings)
    # the decoder repeats settings of the method
    told = {name: v for name, v in _flat(record.protocol.decoder).items() if (name.rpartition(".")[2], v) != POINTS}
    decoder = {name: v for name, v in told.items() if name.rpartition(".")[2] not in call}
    recipe = {**_flat(record.training.numbers), "batch": str(record.training.batch)} if record.training else {}
    return {**decoder, **recipe, "align": record.protocol.align, **call}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = f"{value:g}" if isinstance(value, float) else str(value)
    return flat


def _varying_settings(records: Sequence[Record]) -> list[str]:
    varying: dict[str, None] = {}
    for res in dict.fromkeys(record.call.res for record in records):
        here = [_settings(record) for record in records if record.call.res == res]
        for name in dict.fromkeys(name for settings in here for name in settings):
            if len({settings.get(name) for settings in here}) > 1:
                varying[name] = None
    return sorted(varying)
