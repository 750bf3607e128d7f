"""Compiled modules: the same results, nothing left behind by a rehearsal, and every failure falls back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from lrbench.compilation import PASSES, Compiled, compiles


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def pixels(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def step(module: nn.Module) -> None:
    module(pixels()).square().sum().backward()


def gradients(module: nn.Module) -> list[Tensor]:
    step(module)
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@pytest.fixture
def graphs(monkeypatch) -> list[Any]:
    """Graphs that are compiled from here on, traced as by the real compiler, which is spared its work."""
    seen: list[Any] = []

    def keep(graph: Any, inputs: Any) -> Any:
        seen.append(graph)
        return make_boxed_func(graph)

    monkeypatch.setattr(torch, "compile", partial(spared, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep)))
    return seen


def spared(function: Callable, *, mode: str, dynamic: bool, backend: Any, whole: Callable = torch.compile) -> Callable:
    return whole(function, backend=backend, dynamic=dynamic)


@pytest.mark.parametrize(
    ("asked", "device", "answer"),
    [(None, "cpu", False), (None, "cuda", True), (True, "cpu", True), (False, "cuda", False)],
)
def test_default_is_on_for_gpus_alone(asked, device, answer):
    assert compiles(asked, device) is answer


def test_runs_as_it_is_before_a_rehearsal():
    module = network()
    compiled = Compiled(module)
    assert torch.equal(compiled(pixels()), network()(pixels()))
    assert compiled.failure == "not rehearsed"


def test_compiled_computes_the_same(graphs):
    plain, module = network(), network()
    compiled = Compiled(module)
    compiled.rehearse(partial(step, compiled), device="cpu")
    assert compiled.failure == ""
    assert len(graphs) == 2  # one forward, one backward
    for _ in range(3):
        torch.testing.assert_close(compiled(pixels()), plain(pixels()))
        torch.testing.assert_close(gradients(compiled), gradients(plain))
        module.zero_grad()
        plain.zero_grad()
    torch.testing.assert_close(module.state_dict(), plain.state_dict())
    assert len(graphs) == 2


def test_rehearsal_leaves_nothing(graphs):
    module, before = network(), network().state_dict()
    places = {name: value.data_ptr() for name, value in module.state_dict().items()}
    compiled = Compiled(module)
    compiled.rehearse(partial(step, compiled), device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert list(module.state_dict()) == list(before)
    assert {name: value.data_ptr() for name, value in module.state_dict().items()} == places
    assert all(p.grad is None for p in module.parameters())
    assert list(compiled.state_dict()) == [f"module.{name}" for name in before]


def test_other_parameters_may_train_later(graphs):
    module = network()
    compiled = Compiled(module)
    compiled.rehearse(partial(step, compiled), device="cpu")
    module[0].requires_grad_(False)
    compiled.rehearse(partial(step, compiled), device="cpu")
    assert len(graphs) == 4
    step(compiled)
    assert module[0].weight.grad is None
    assert module[3].weight.grad is not None
    assert len(graphs) == 4


def test_evaluation_of_the_module_compiles_nothing(graphs):
    module = network()
    compiled = Compiled(module)
    compiled.rehearse(partial(step, compiled), device="cpu")
    module.eval()
    with torch.inference_mode():
        module(pixels(5))
    module.train()
    compiled(pixels())
    assert len(graphs) == 2


def test_many_networks_of_one_process_are_all_compiled(graphs):
    """Torch gives up on a line of code after eight variants; networks of a comparison share theirs."""
    for number in range(1, 11):
        compiled = Compiled(network())
        compiled.rehearse(partial(step, compiled), device="cpu")
        assert (compiled.failure, len(graphs)) == ("", 2 * number)


def raises(*arguments: Any, **options: Any) -> Any:
    raise RuntimeError("\nno compiler\nhere")


def compiles_to_what_raises(*arguments: Any, **options: Any) -> Any:
    return raises


def compiles_to_what_raises_later(function: Callable, **options: Any) -> Any:
    calls: list[int] = []

    def run(*inputs: Any) -> Any:
        calls.append(1)
        return function(*inputs) if len(calls) < PASSES else raises()

    return run


def unchanged(graph: Any, inputs: Any) -> Any:
    return make_boxed_func(graph)


FAILURES = {
    "at once": raises,
    "at the first call": compiles_to_what_raises,
    "at the last pass": compiles_to_what_raises_later,
    "forward": partial(spared, backend=aot_autograd(fw_compiler=raises)),
    "backward": partial(spared, backend=aot_autograd(fw_compiler=unchanged, bw_compiler=raises)),
}


@pytest.mark.parametrize("broken", FAILURES.values(), ids=FAILURES)
def test_what_fails_falls_back(monkeypatch, broken):
    module = network()
    compiled = Compiled(module)
    monkeypatch.setattr(torch, "compile", broken)
    compiled.rehearse(partial(step, compiled), device="cpu")
    assert "no compiler here" in compiled.failure
    assert "\n" not in compiled.failure
    assert "TORCHDYNAMO_VERBOSE" not in compiled.failure
    before = network().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(compiled(pixels()), network()(pixels()))


def test_interruption_is_no_failure(monkeypatch):
    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Compiled(network()).rehearse(raises, device="cpu")


ALONE = """
import sys
from functools import partial
sys.path.insert(0, {tests!r})
from test_compilation import network, pixels, step
from lrbench.compilation import Compiled
import torch
module = network()
compiled = Compiled(module)
compiled.rehearse(partial(step, compiled), device="cpu")
torch.testing.assert_close(compiled(pixels()), network()(pixels()))
print(compiled.failure or "compiled")
"""


def alone(cache: Any, **environment: str) -> str:
    """What the real compiler says, in a process of its own, where nothing is compiled yet."""
    script = ALONE.format(tests=os.path.dirname(__file__))
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), **environment}
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_without_a_compiler_on_the_machine(tmp_path):
    assert "No working C++ compiler" in alone(tmp_path, CXX="/nonexistent")


@pytest.mark.slow
def test_with_a_compiler_on_the_machine(tmp_path):
    said = alone(tmp_path)
    if "No working C++ compiler" in said:
        pytest.skip(said)
    assert said == "compiled"
