"""What freed arrays become: both frameworks ask for the same large blocks at every step."""

import contextlib
import ctypes


def keep_freed() -> None:
    """Tells glibc to keep what tensors free: page faults were a quarter of a step on the CPU."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 32 << 20)  # the largest that glibc takes
        libc.mallopt(m_trim_threshold, 2**31 - 1)
