"""Memory that is freed is kept by the process instead of being given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt (malloc.h)."""


@cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed; once per process.

    glibc maps every large tensor anew, and the system clears it page by page: on a processor that was 40 % of the time
    of an evaluation at 256x192, and 25 % at 64x48. The process then keeps its peak of memory to its end.

    Returns:
        Whether the C library took it. Other libraries than glibc decide for themselves.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
