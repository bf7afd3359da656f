"""An untrusted object goes through libbpf in a child process first.

libbpf 1.1 itself dies on some damaged objects. An object that was not compiled here is therefore
opened in a child before this process opens it, and loaded in a child before this process loads it.
That is done once for each content, whatever is set up later. The child does exactly what this
process is about to do, from the same state, and then relocates the programs that were left out.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.objects.loading.load import load
from pytest_bpf.objects.loading.quarantine import survive
from pytest_bpf.objects.loading.settings import HandleOwner, PendingSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_bpf.objects.loading.settings import ObjectFile

NO_FLAG = 1 << 31
"""A flag of programs that no kernel has.

A type that no kernel has would do worse: libbpf goes by the type to load the kernel's BTF, and by
the section to search it.
"""


def rehearse_open(file: ObjectFile) -> None:
    """Return once a child has opened this content; `LoadError` when it crashed or hung."""
    key = (sha256(file.content).digest(), False)
    survive(file.path, key, lambda: HandleOwner(file, PendingSettings()).handle.map_types)


def rehearse_load(file: ObjectFile, owner: Callable[[], HandleOwner]) -> None:
    """Return once a child has loaded this content; `LoadError` when it crashed or hung.

    ``owner`` returns the object as it is set up.
    """

    def attempt() -> None:
        with suppress(BpfError):
            load(owner(), None)
        _relocate_all(file)

    survive(file.path, (sha256(file.content).digest(), True), attempt)


def _relocate_all(file: ObjectFile) -> None:
    """Go through the load of all programs, and let the kernel refuse the first one."""
    handle = HandleOwner(file, PendingSettings()).take()
    for pointer in handle.maps.values():  # a pin that cannot be would end it before
        libbpf.function("bpf_map__set_pin_path")(pointer, None)
    autoload = libbpf.function("bpf_program__set_autoload")
    for number, pointer in enumerate(handle.programs.values()):
        autoload(pointer, True)
        if number == 0:
            libbpf.function("bpf_program__set_flags")(pointer, NO_FLAG)
    with libbpf.messages():
        libbpf.function("bpf_object__load")(handle.pointer)
