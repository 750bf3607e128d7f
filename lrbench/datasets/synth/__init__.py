"""`synth`: people rendered from 3D skeletons, in COCO's layout, for benchmarks without downloads."""

from lrbench.datasets.synth.build import SynthSpec, build

__all__ = ["SynthSpec", "build"]
