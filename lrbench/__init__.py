"""Benchmark for human pose estimation from low-resolution images."""

__version__ = "0.1.0"
