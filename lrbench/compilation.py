"""Networks compiled by `torch.compile`, or left as they are where that does not work.

A step on crops of 64x48 keeps a GPU waiting for kernels to be launched; compiled, they are launched together, as CUDA
graphs. A processor gains little and compiles for minutes: HRNet-W32 at 64x48, batch 32, took 250 s for a step that was
4 % faster. A compiled network computes the same up to rounding, so whether one was asked for belongs to what a run is.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

PASSES = 3
"""Of a rehearsal: CUDA graphs warm up in the first, are recorded in the second and replayed in the third."""


def compiles(asked: bool | None, device: str) -> bool:
    """Whether networks are compiled: as asked for, else on GPUs alone."""
    return device == "cuda" if asked is None else asked


class Compiled(nn.Module):
    """A module that runs compiled once a rehearsal went well, and as it is before that or where one failed.

    The module keeps its parameters and their names, and runs as it is for whoever calls it by itself.

    Args:
        module: what to compile; its inputs keep their shapes, which are compiled in.

    Attributes:
        failure: why it runs as it is, in one line; empty where it runs compiled.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.failure = "not rehearsed"
        self.fast: Callable[..., Any] | None = None

    def forward(self, *inputs: Any) -> Any:
        """What the module makes of its inputs."""
        return (self.fast or self.module)(*inputs)

    def rehearse(self, step: Callable[[], Any], *, device: str) -> None:
        """Compile, and try it out; nothing of the module's state changes by that.

        Compilers fail in many ways, some only in the backward pass: no C++ compiler or no Triton on this machine, an
        operation they do not know, no memory for a graph. None of them may stop a training that works without.

        Args:
            step: calls this module as it will be used, and runs the backward pass; what it draws is drawn.
            device: where that happens.
        """
        before = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        mode = "reduce-overhead" if device == "cuda" else "default"  # that is CUDA graphs
        try:
            if self.fast is None:
                torch.compiler.reset()  # networks of one process share what may be compiled of a line of code
                # the method, because a compiled module would be a second one of the same parameters
                self.fast = torch.compile(self.module.forward, mode=mode, dynamic=False)
            for _ in range(PASSES):
                step()
            self.failure = ""
        except Exception as error:
            # below a blank line torch advises how to debug it
            said = textwrap.shorten(str(error).strip().split("\n\n")[0], 200)
            self.fast, self.failure = None, said or type(error).__name__
        finally:
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)  # in place, because graphs remember where it lies
            self.module.zero_grad()
