"""Records as `lrbench eval` writes them, with made-up numbers."""

from __future__ import annotations

from typing import Any

from lrbench.degradation import load_preset
from lrbench.records import (
    Cost,
    Counts,
    MethodCall,
    Metrics,
    Protocol,
    Provenance,
    Record,
    Training,
    key_of,
)
from lrbench.structures import COCO


def record(method: str, res: str, ap: float | None, **changes: Any) -> Record:
    given: dict[str, Any] = {
        "seed": 0,
        "flip": True,
        "boxes": "gt",
        "backbone": "hrnet_w32",
        "dataset": "synth",
        "split": "val",
        "recipe": "quick",
        "train_data": "synth/train",
        "train_hash": "bbbb",
        "train_persons": 100,
        "data_hash": "aaaa",
        "persons": 10,
        "crop": "paper",
        "severity": None,
        "numbers": {},
        "pixel_seed": 0,
        "copy": None,
        "weights": "",
        "upscaling": None,
        "pose": "",
        "decoder": {},
        "settings": {},
        "status": "done",
        "utc": "2025-01-01T00:00:00Z",
        "keypoint_ap": {name: None if ap is None or name == "nose" else ap for name in COCO.keypoints},
    } | changes
    preset = load_preset(given["crop"], given["severity"])
    degradation = {"crop": preset.plain | given["numbers"], **({"seed": given["pixel_seed"]} if preset.random else {})}
    if given["copy"] is not None:
        degradation["dataset"] = given["copy"]
    upscaling = given["upscaling"]
    return Record(
        key=key_of(method, res, given),
        status=given["status"],
        call=MethodCall(
            name=method,
            backbone=given["backbone"],
            sr="edsr x4" if upscaling else "none",
            pose=given["pose"],
            res=res,
            settings=given["settings"],
        ),
        training=Training(
            recipe=given["recipe"],
            data=given["train_data"],
            data_hash=given["train_hash"],
            persons=given["train_persons"],
            epochs=2,
            batch=8,
            start="scratch",
            numbers={},
        ),
        protocol=Protocol(
            dataset=given["dataset"],
            split=given["split"],
            data_hash=given["data_hash"],
            boxes=given["boxes"],
            flip=given["flip"],
            align="corner",
            decoder=given["decoder"],
            degradation=degradation,
            referee="r",
        ),
        metrics=Metrics(ap=ap),
        keypoint_ap=given["keypoint_ap"],
        counts=Counts(images=1, persons=given["persons"], crops=given["persons"], predictions=given["persons"]),
        cost=Cost(),
        provenance=Provenance(
            lrbench="0",
            commit="",
            code_hash="",
            versions={},
            weights_sha256=given["weights"],
            seed=given["seed"],
            device="cpu",
            precision="float32",
            threads=1,
            utc=given["utc"],
        ),
        settings={"upscaling": upscaling} if upscaling else {},
    )


def on_copy(method: str, ap: float, *, source: str = "0123456789", copy_seed: int = 0, **changes: Any) -> Record:
    """Scored at 64x48 on a copy: `height`, or `scale`, and `preset` and `copy_severity` say which."""
    height, scale = changes.pop("height", None), changes.pop("scale", None)
    preset = load_preset(changes.pop("preset", "antialias"), changes.pop("copy_severity", None))
    name = f"copy-{preset.name}-{preset.severity}-{height or scale}"
    note = {
        "preset": preset.name,
        "numbers": preset.plain,
        "level": "height" if height else "image",
        "severity": preset.severity or None,
        "seed": copy_seed,
        "scale": scale,
        "size": None,
        "height": height,
        "source": "person_keypoints_val.json",
        "source_sha256": source,
    }
    return record(method, "64x48", ap, **{"dataset": name, "data_hash": name, "copy": note} | changes)
