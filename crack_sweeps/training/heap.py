"""The processor's memory between two steps: kept, not given back to the system and asked for again."""

from __future__ import annotations

import ctypes
import os
import platform

# mallopt(3); the numbers are those of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES = 1 << 30
LARGEST_KEPT_BLOCK_BYTES = 32 << 20  # the most that glibc takes on 64 bits; a larger block is mapped for itself
USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have this process keep what a training step frees, as the next step needs as much again.

    The GNU C library gives the top of its heap back as soon as a step's last tensors are freed; the next step gets
    the same pages again, zeroed one fault at a time: 2,000 to 6,000 faults, up to a twentieth of a small U-Net's
    step on the processor. The peak, which decides whether a training fits, stays what it was.

    Returns:
        Whether it was asked for: not with another C library, and not where the environment sets such limits itself.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_OWN):
        return False
    library = ctypes.CDLL(None)
    # Each of the two ends glibc's own adaptation of both, so one alone would map every block above 128 KiB anew.
    kept = library.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK_BYTES)
    return bool(kept and library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
