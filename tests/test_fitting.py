"""The training loop with several updates: who moves by what, what is reported, which files are kept in which order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from test_training import Killer, Stop
from torch import Tensor, nn

from lrbench import fitting
from lrbench.fitting import DamagedRun, Update, fit

STEPS, EPOCHS = 3, 2


class Numbers(NamedTuple):
    """A batch."""

    wanted: Tensor


class Toy:
    """Two networks that are drawn to changing points, each by an update of its own."""

    name, epochs, steps, batch, seed, criterion = "toy", EPOCHS, STEPS, 4, 0, "val_score"

    def __init__(self, scores: Sequence[float | None] = (), **options: Any) -> None:
        self.first, self.second = nn.Linear(2, 2, dtype=torch.float64), nn.Linear(2, 2, dtype=torch.float64)
        for network, value in ((self.first, 0.5), (self.second, -0.5)):
            for parameter in network.parameters():
                nn.init.constant_(parameter, value)
        self.networks: Mapping[str, nn.Module] = {"first": self.first, "second": self.second}
        self.scores, self.options = list(scores), options
        self.shares: list[float] = []
        self.rates: list[int] = []
        self.events: list[str] = []

    def setup(self, fabric: Fabric) -> Sequence[Update]:
        own = [self.first.weight]
        reported = Update(parameters=own, terms=self.first_terms, rate=self.rate, **self.options)
        other = Update(
            parameters=list(self.second.parameters()), terms=self.second_terms, rate=lambda step: 0.3, name="critic"
        )
        return [reported, other]

    def rate(self, step: int) -> float:
        self.rates.append(step)
        return 0.1 / (step + 1)

    def first_terms(self, batch: Numbers, share: float) -> Mapping[str, Tensor]:
        self.events.append("first")
        self.shares.append(share)
        terms = {"weight": pull(self.first.weight, batch.wanted), "bias": 3 * pull(self.first.bias, batch.wanted)}
        return {name: term.float() for name, term in terms.items()}

    def second_terms(self, batch: Numbers, share: float) -> Mapping[str, Tensor]:
        self.events.append("second")
        return {"weight": pull(self.second.weight, -batch.wanted).float()}

    def begin(self, epoch: int) -> Mapping[str, Any]:
        return {"fact": f"epoch {epoch}"}

    def batches(self, epoch: int) -> Iterator[Any]:
        for i in range(STEPS):
            yield Numbers(torch.tensor(float(STEPS * epoch + i), dtype=torch.float64))

    def stepped(self) -> None:
        self.events.append("stepped")

    def validate(self) -> float | None:
        return self.scores.pop(0) if self.scores else None

    def files(self) -> Mapping[str, bytes]:
        state = b"".join(p.detach().numpy().tobytes() for p in self.first.parameters())
        return {"weights.safetensors": state, "partner.bin": self.second.weight.detach().numpy().tobytes()}


def pull(parameter: Tensor, wanted: Tensor) -> Tensor:
    return (parameter - wanted).square().sum()


def run_of(course: Toy, run: Path, **options: Any) -> Any:
    return fit(course, run=run, identity={}, **options)


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def adam(*, betas: tuple[float, float], decay: float, clip: float) -> dict[str, list[float]]:
    """What weight and bias of the first network are after every step, by the formulas of Adam and AdamW.

    Args:
        betas, decay, clip: see `Update`.
    """
    pull_of, pace_of = {"weight": 1, "bias": 3}, {"weight": 1.0, "bias": 0.25}
    values: dict[str, list[float]] = {name: [] for name in pull_of}
    now, moments = dict.fromkeys(pull_of, 0.5), dict.fromkeys(pull_of, (0.0, 0.0))
    for step in range(EPOCHS * STEPS):
        gradients = {name: 2 * factor * (now[name] - step) for name, factor in pull_of.items()}
        norm = math.sqrt(4 * gradients["weight"] ** 2 + 2 * gradients["bias"] ** 2)  # four numbers and two
        for name, gradient in gradients.items():
            g, (m, v) = gradient * min(1.0, clip / (norm + 1e-6)), moments[name]
            m, v = moments[name] = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
            rate = 0.1 / (step + 1) * pace_of[name]
            upwards = m / (1 - betas[0] ** (step + 1)) / (math.sqrt(v / (1 - betas[1] ** (step + 1))) + 1e-8)
            now[name] = now[name] * (1 - rate * decay) - rate * upwards
            values[name].append(now[name])
    return values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"betas": (0.5, 0.9)},
        {"loss_scale": 1e3},
        {"weight_decay": 0.2},
        {"clip": 2.0},
        {"clip": 6.0, "weight_decay": 0.2},
    ],
)
def test_every_number_moves_as_adam_says(tmp_path, options):
    """Partners at their own pace; the clip is of both together."""
    seen: dict[str, list[float]] = {"weight": [], "bias": []}

    class Watched(Toy):
        def setup(self, fabric: Fabric) -> Sequence[Update]:
            self.options |= {"partners": [self.first.bias], "partner_rate": 0.25}
            return super().setup(fabric)

        def stepped(self) -> None:
            seen["weight"].append(self.first.weight[0, 0].item())
            seen["bias"].append(self.first.bias[0].item())

    run_of(Watched(**options), tmp_path / "run")
    betas, decay = options.get("betas", (0.9, 0.999)), options.get("weight_decay", 0.0)
    expected = adam(betas=betas, decay=decay, clip=options.get("clip", math.inf))
    for name, values in expected.items():
        np.testing.assert_allclose(seen[name], values, rtol=1e-6)


def test_what_is_no_parameter_of_an_update_stays(tmp_path):
    course = Toy()
    run_of(course, tmp_path / "run")
    assert torch.equal(course.first.bias, torch.full((2,), 0.5, dtype=torch.float64))  # although the loss pulls at it
    assert (course.first.weight != 0.5).all()
    assert (course.second.weight != -0.5).all()
    assert torch.equal(course.second.bias, torch.full((2,), -0.5, dtype=torch.float64))  # no term reaches it


def test_updates_take_turns_on_every_batch_and_know_how_far_the_run_is(tmp_path):
    course = Toy()
    run_of(course, tmp_path / "run")
    assert course.events == ["first", "second", "stepped"] * (EPOCHS * STEPS)
    assert course.shares == [i / (EPOCHS * STEPS) for i in range(EPOCHS * STEPS)]
    assert sorted(set(course.rates)) == list(range(EPOCHS * STEPS))


def test_lines_tell_the_updates_apart(tmp_path):
    run_of(Toy(scores=[0.3, 0.2]), tmp_path / "run")
    first, second = lines(tmp_path / "run")
    named = {"epoch", "fact", "learning_rate", "seconds", "images_per_second", "data_wait", "val_score"}
    assert set(first) == named | {"loss", "weight", "bias", "critic loss", "critic weight"}
    assert (first["fact"], second["fact"], second["val_score"]) == ("epoch 0", "epoch 1", 0.2)
    assert first["loss"] == pytest.approx(first["weight"] + first["bias"])
    assert first["critic loss"] == pytest.approx(first["critic weight"])
    # the bias stands at 0.5 and is drawn to 0, 1 and 2: 3 * 2 * (0.25 + 0.25 + 2.25) / 3
    assert first["bias"] == pytest.approx(5.5)
    assert (first["learning_rate"], second["learning_rate"]) == pytest.approx((0.1 / 3, 0.1 / 6))  # not the critic's


def test_loss_of_a_named_update_that_breaks_stops_the_run(tmp_path):
    class Broken(Toy):
        def second_terms(self, batch: Numbers, share: float) -> Mapping[str, Tensor]:
            terms = super().second_terms(batch, share)
            return {k: v * (math.nan if share >= 0.5 else 1) for k, v in terms.items()}

    with pytest.raises(fitting.TrainingError, match="toy: the loss is nan in epoch 2, step 1"):
        run_of(Broken(), tmp_path / "run")
    assert len(lines(tmp_path / "run")) == 1


@pytest.mark.parametrize("unread", [0, 2, 7])
def test_losses_that_are_read_late_are_the_same(unread: int):
    values = [0.1, 0.2, 0.7, 1e-9, 3.0]
    sums = fitting.Sums(unread)
    for step, value in enumerate(values):
        terms = {"loss": torch.tensor(value), "critic loss": torch.tensor(2 * value)}
        assert sums.add(terms, last=step == len(values) - 1) is None
    exact = sum(torch.tensor(v).double().item() for v in values) / len(values)
    assert sums.mean("loss") == exact
    assert sums.mean("critic loss") == pytest.approx(2 * exact)


@pytest.mark.parametrize(("unread", "told"), [(0, 2), (1, 3), (7, 4)])
def test_a_loss_that_breaks_is_told_with_its_step_however_late(unread: int, told: int):
    sums = fitting.Sums(unread)
    assert math.isnan(sums.mean("loss"))
    for step in range(5):
        loss = torch.tensor(math.inf if step == 2 else 1.0)
        broken = sums.add({"loss": loss, "term": torch.tensor(math.nan)}, last=step == 4)
        if broken is not None:
            break
    assert (step, broken) == (told, (2, math.inf))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_batches_on_a_gpu_are_those_of_the_loader():
    made = [Numbers(torch.full((3,), float(i))) for i in range(5)]
    moved = list(fitting.staged(iter(made), torch.device("cuda")))
    assert [batch.wanted.device.type for batch in moved] == ["cuda"] * 5
    assert all(torch.equal(a.wanted.cpu(), b.wanted) for a, b in zip(moved, made, strict=True))


@pytest.mark.parametrize(("scores", "best"), [((0.1, 0.2), 1), ((0.2, 0.1), 0), ((), 1)])
def test_all_files_are_those_of_the_chosen_and_of_the_last_epoch(tmp_path, scores, best):
    after: list[dict[str, bytes]] = []

    class Watched(Toy):
        def validate(self) -> float | None:
            after.append(dict(self.files()))
            return super().validate()

    trained = run_of(Watched(scores), tmp_path / "run")
    assert trained.weights == tmp_path / "run" / "weights.safetensors"
    kept = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert set(kept) == {
        "settings.json", "metrics.jsonl", "state.pt", "weights.safetensors", "partner.bin", "last.safetensors",
        "last_partner.bin",
    }  # fmt: skip
    assert {name: kept[name] for name in after[best]} == after[best]
    assert {"weights.safetensors": kept["last.safetensors"], "partner.bin": kept["last_partner.bin"]} == after[-1]
    assert after[0] != after[1]
    assert ("val_score" in lines(tmp_path / "run")[0]) == bool(scores)


def test_weights_are_written_after_what_lies_beside_them(tmp_path, monkeypatch):
    written: list[str] = []

    def write(path: Path, content: bytes) -> None:
        written.append(path.name)
        path.write_bytes(content)

    monkeypatch.setattr(fitting, "write_atomic", write)
    run_of(Toy(scores=[0.1, 0.2]), tmp_path / "run")
    chosen = ["partner.bin", "weights.safetensors"]
    last = ["state.pt", "metrics.jsonl"], {"last.safetensors", "last_partner.bin"}
    assert written[0] == "settings.json"
    for epoch in range(EPOCHS):
        part = written[1 + 6 * epoch : 7 + 6 * epoch]
        assert (part[:2], part[2:4], set(part[4:])) == (chosen, *last)
    assert len(written) == 1 + 6 * EPOCHS


@pytest.mark.parametrize("at", [("epoch", 1), ("train", 5)])
def test_all_networks_and_optimisers_continue(tmp_path, at):
    run_of(Toy(clip=2.0), tmp_path / "whole")
    with pytest.raises(Stop):
        run_of(Toy(clip=2.0), tmp_path / "run", progress=Killer(*at))
    run_of(Toy(clip=2.0), tmp_path / "run")
    for name in ("weights.safetensors", "partner.bin", "last.safetensors", "last_partner.bin"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_state_of_other_networks_is_refused(tmp_path):
    class Third(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.networks = {**self.networks, "third": nn.Linear(1, 1)}

    with pytest.raises(Stop):
        run_of(Toy(), tmp_path / "run", progress=Killer("epoch", 1))
    with pytest.raises(DamagedRun, match=r"state\.pt is damaged \('third'\); remove the folder"):
        run_of(Third(), tmp_path / "run")
