"""What a step frees stays with the process, unless the person has said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from crack_sweeps.training import heap

# Blocks as large as a step's tensors, without torch, whose small allocations between them may hold the heap's top.
FAULTS_OF_TEN_STEPS = """
import ctypes, resource, sys
from crack_sweeps.training.heap import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]

def step():
    blocks = [libc.malloc(mib << 20) for mib in (24, 30, 20, 31, 16)]
    for block, mib in zip(blocks, (24, 30, 20, 31, 16)):
        ctypes.memset(ctypes.c_void_p(block), 1, mib << 20)
    for block in blocks:
        libc.free(block)

print(keep_freed_memory() if sys.argv[1] == "keep" else "-")
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    unset = {name: value for name, value in os.environ.items() if name not in heap.USERS_OWN}
    command = [sys.executable, "-c", FAULTS_OF_TEN_STEPS, how]
    told = subprocess.run(command, env=unset, capture_output=True, text=True, check=True).stdout.split()
    return told[0], int(told[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library gives memory back like that")
def test_the_next_step_needs_no_page_anew():
    assert faults("keep") == ("True", pytest.approx(0, abs=100))
    assert faults("leave")[1] > 100_000  # a page of 4 KiB at a time, of 121 MiB a step


@pytest.mark.parametrize("name", heap.USERS_OWN)
def test_settings_of_the_person_stand(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv(name, "131072")
    assert not heap.keep_freed_memory()


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2.5"))
    assert not heap.keep_freed_memory()
