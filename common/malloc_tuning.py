"""What the C library is told about memory."""

import contextlib
import ctypes


def disable_trimming() -> None:
    """Tells glibc to keep what tensors free: page faults were a quarter of a step on the CPU.

    Other C libraries are left as they are.
    """
    m_trim_threshold, m_mmap_threshold, m_arena_max = -1, -3, -8  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_arena_max, 1)  # another thread's arena cannot hold a tensor above 64 MB
        if not libc.mallopt(m_mmap_threshold, 1 << 30):
            libc.mallopt(m_mmap_threshold, 32 << 20)  # the largest that glibc took before 2.35
