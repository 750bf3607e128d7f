"""Degradations with blur, noise and compression.

``blur``, ``noise``, ``compression`` and ``resampling`` hold the operations. They take and return pictures (H, W, 3)
float32 RGB in [0, 1] and take every random number from the generator they are given. ``camera``, ``imagenet_c``,
``realesrgan`` and ``bsrgan`` put them together, one frozen dataclass of plain numbers each; ``corruption`` says how
each serves whole pictures and crops, ``presets`` finds them by name.

The order is that of a camera: lens, then pixel area, then photon and read noise, then what its processor does. So blur
is applied before the shrink, with sigmas in px of the small picture, which makes a preset mean the same for every
factor, and noise and compression after it.
"""
