"""A first opening of an untrusted object where a crash is survivable: in a process of its own.

libbpf 1.1 itself dies on some damaged objects. An object that was not compiled here is therefore
opened and loaded once in a child; only how the child ended counts, and an object that it survived
is remembered by its content.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

TIME_LIMIT = 60.0
"""Seconds until a child that neither ends nor dies is given up."""

CHILD = """
import ctypes, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
libbpf = ctypes.CDLL("libbpf.so.1")
libbpf.libbpf_set_print(None)
libbpf.bpf_object__open_mem.restype = ctypes.c_void_p
content = open(sys.argv[1], "rb").read()
opened = libbpf.bpf_object__open_mem(content, ctypes.c_size_t(len(content)), None)
if opened:
    libbpf.bpf_object__load(ctypes.c_void_p(opened))
    libbpf.bpf_object__close(ctypes.c_void_p(opened))
"""

_survived: set[str] = set()


def survive(path: Path, content: bytes, known: AbstractSet[str] = frozenset()) -> str:
    """Return the content's hash once a child has opened it and lived.

    Raises `LoadError` when the child crashed or hung. ``known`` are hashes that need no child.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest in _survived or digest in known:
        return digest
    command = [sys.executable, "-I", "-S", "-c", CHILD, str(path)]
    try:
        child = subprocess.run(command, timeout=TIME_LIMIT, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        raise LoadError(
            f"{path}: libbpf did not finish opening it within {TIME_LIMIT:.0f} s; "
            "the object is damaged, compile it again"
        ) from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise LoadError(
            f"{path}: is damaged: libbpf crashes on it ({name}, in a process of its own); "
            "compile it again"
        )
    _survived.add(digest)
    return digest
