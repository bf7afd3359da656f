"""Load one program of an object without the others, and keep the kernel's answer.

A refusal is an answer here, not an error: tests of the verifier expect some.
"""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.btf.enums import MAP_TYPES, program_type_name
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.interrupts import call_uninterrupted
from pytest_bpf.kernel.sys.libbpf_options import OpenOptions
from pytest_bpf.kinds.flags import MapFlags
from pytest_bpf.objects.loading.struct_ops import leave_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

LOG_SIZE = 2 << 20
"""Bytes of the verifier's log, as many as the kernel's test_loader keeps."""

UNPRIVILEGED_MAPS = frozenset(
    {"hash", "percpu_hash", "hash_of_maps", "percpu_cgroup_storage", "array", "ringbuf"}
    | {"prog_array", "cgroup_array", "percpu_array", "user_ringbuf", "array_of_maps"}
    | {"cgroup_storage", "perf_event_array"}
)
"""Maps that a process without privilege may create."""


@dataclass(frozen=True)
class Answer:
    """The kernel's answer to one program.

    ``code`` is 0 when it was loaded, else the error code; ``log`` is the verifier's, ``messages``
    are libbpf's, ``type`` and ``section`` are the program's. ``fd``, ``maps`` (descriptors by
    name) and ``struct_ops`` (libbpf's pointers of such maps) are valid until the context ends.
    """

    code: int
    log: str
    messages: tuple[str, ...]
    fd: int = -1
    type: str = ""
    section: str = ""
    struct_ops: tuple[int, ...] = ()
    maps: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def load_alone(
    content: bytes,
    name: str,
    program: str,
    *,
    auxiliary: Collection[str] = (),
    log_level: int = 0,
    flags: int = 0,
    btf_path: str = "",
    privileged: bool = True,
) -> Iterator[Answer]:
    """Load ``program`` of an object file's ``content``, with ``auxiliary`` ones; yield the answer.

    ``name`` is the object's, ``flags`` add to the program's own, ``btf_path`` is the kernel's BTF
    to relocate against. Without ``privileged`` only maps that need no privilege are created. Raises
    `LoadError` when libbpf cannot open the object.
    """
    log = _log()
    log[0] = b"\0"
    pointer = _open(content, name, btf_path)
    try:
        chosen = _choose(pointer, program, auxiliary)
        libbpf.function("bpf_program__set_log_buf")(chosen, log, LOG_SIZE)
        libbpf.function("bpf_program__set_log_level")(chosen, log_level)
        if flags:
            own = libbpf.function("bpf_program__flags")(chosen)
            libbpf.function("bpf_program__set_flags")(chosen, own | flags)
        if not privileged:
            _leave_out_maps(pointer)
        leave_out(_maps(pointer), _programs(pointer))
        with libbpf.messages() as messages:
            code = -call_uninterrupted(libbpf.function("bpf_object__load"), pointer)
        text = log.value.decode(errors="replace")
        yield Answer(
            code,
            text,
            tuple(messages),
            fd=libbpf.function("bpf_program__fd")(chosen) if not code else -1,
            type=program_type_name(libbpf.function("bpf_program__type")(chosen)),
            section=libbpf.function("bpf_program__section_name")(chosen).decode(),
            struct_ops=() if code else tuple(_struct_ops(pointer)),
            maps={} if code else dict(_descriptors(pointer)),
        )
    finally:
        libbpf.function("bpf_object__close")(pointer)


def _log(kept: list[ctypes.Array[ctypes.c_char]] = []) -> ctypes.Array[ctypes.c_char]:  # noqa: B006 (made once a process: clearing 2 MB takes longer than loading)
    if not kept:
        kept.append(ctypes.create_string_buffer(LOG_SIZE))
    return kept[0]


def _open(content: bytes, name: str, btf_path: str) -> int:
    options = OpenOptions(
        object_name=name.encode(),
        btf_custom_path=btf_path.encode() if btf_path else None,
    )
    with libbpf.messages() as messages:
        try:
            arguments = (content, len(content), ctypes.byref(options))
            return int(libbpf.call("bpf_object__open_mem", *arguments))
        except OSError as error:
            why = messages[-1] if messages else libbpf.reason(error.errno or 0)
            raise LoadError(f"{name}: libbpf cannot open it: {why}", error.errno or 0) from None


def _choose(pointer: int, program: str, auxiliary: Collection[str]) -> int:
    """Switch every program off but these; return libbpf's pointer of ``program``."""
    name_of = libbpf.function("bpf_program__name")
    switch = libbpf.function("bpf_program__set_autoload")
    wanted, also = program.encode(), {name.encode() for name in auxiliary}
    chosen = 0
    for current in _programs(pointer):
        name = name_of(current)
        switch(current, name == wanted or name in also)
        if name == wanted:
            chosen = current
    if not chosen:
        raise LoadError(f"the object has no program {program!r}")
    return chosen


def _programs(pointer: int) -> Iterator[int]:
    following = libbpf.function("bpf_object__next_program")
    current = following(pointer, None)
    while current:
        yield current
        current = following(pointer, current)


def _maps(pointer: int) -> Iterator[int]:
    following = libbpf.function("bpf_object__next_map")
    current = following(pointer, None)
    while current:
        yield current
        current = following(pointer, current)


def _kind(pointer: int) -> str:
    number = libbpf.function("bpf_map__type")(pointer)
    return MAP_TYPES[number] if number < len(MAP_TYPES) else ""


def _leave_out_maps(pointer: int) -> None:
    for made in _maps(pointer):
        kind = _kind(made)
        seed = kind.startswith(("hash", "percpu_hash"))
        zero = seed and libbpf.function("bpf_map__map_flags")(made) & MapFlags.ZERO_SEED
        allowed = kind in UNPRIVILEGED_MAPS and not zero
        libbpf.function("bpf_map__set_autocreate")(made, allowed)


def _descriptors(pointer: int) -> Iterator[tuple[str, int]]:
    name_of, fd_of = libbpf.function("bpf_map__name"), libbpf.function("bpf_map__fd")
    for each in _created_maps(pointer):
        if (fd := fd_of(each)) >= 0:
            yield name_of(each).decode(errors="replace"), fd


def _struct_ops(pointer: int) -> Iterator[int]:
    return (made for made in _created_maps(pointer) if _kind(made) == "struct_ops")


def _created_maps(pointer: int) -> Iterator[int]:
    """Yield the maps that were created: the others have a descriptor, too, but of no map."""
    created = libbpf.function("bpf_map__autocreate")
    return (each for each in _maps(pointer) if created(each))
