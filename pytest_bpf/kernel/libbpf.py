"""libbpf through ctypes: its functions by name, its messages as text, its codes as exceptions.

Nothing here interprets BPF; the names and the order of arguments are those of ``bpf/libbpf.h``,
``bpf/bpf.h`` and ``bpf/btf.h``. The library is loaded by the first call, not by the import.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import os
import threading
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLDEST = (1, 1)
"""The oldest libbpf that is supported, as (major, minor)."""

INSTALL = "install Debian's or Ubuntu's libbpf-dev"

LOG_STATS = 4
"""``BPF_LOG_STATS``: the verifier reports what it processed, and nothing else."""

SIGNATURES: dict[str, tuple[Any, ...]] = {
    # bpf/libbpf.h: objects
    "bpf_object__open_mem": (c_void_p, c_void_p, c_size_t, c_void_p),
    "bpf_object__load": (c_int, c_void_p),
    "bpf_object__close": (None, c_void_p),
    "bpf_object__btf": (c_void_p, c_void_p),
    "bpf_object__next_program": (c_void_p, c_void_p, c_void_p),
    "bpf_object__next_map": (c_void_p, c_void_p, c_void_p),
    # programs
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__section_name": (c_char_p, c_void_p),
    "bpf_program__autoload": (c_bool, c_void_p),
    "bpf_program__set_autoload": (c_int, c_void_p, c_bool),
    "bpf_program__autoattach": (c_bool, c_void_p),
    "bpf_program__type": (c_int, c_void_p),
    "bpf_program__set_type": (c_int, c_void_p, c_int),
    "bpf_program__expected_attach_type": (c_int, c_void_p),
    "bpf_program__set_attach_target": (c_int, c_void_p, c_int, c_char_p),
    "bpf_program__set_log_level": (c_int, c_void_p, c_uint32),
    "bpf_program__set_log_buf": (c_int, c_void_p, c_void_p, c_size_t),
    "bpf_program__fd": (c_int, c_void_p),
    "bpf_program__insn_cnt": (c_size_t, c_void_p),
    # attaching
    "bpf_program__attach": (c_void_p, c_void_p),
    "bpf_program__attach_cgroup": (c_void_p, c_void_p, c_int),
    "bpf_program__attach_iter": (c_void_p, c_void_p, c_void_p),
    "bpf_program__attach_kprobe_opts": (c_void_p, c_void_p, c_char_p, c_void_p),
    "bpf_program__attach_kprobe_multi_opts": (c_void_p, c_void_p, c_char_p, c_void_p),
    "bpf_program__attach_netns": (c_void_p, c_void_p, c_int),
    "bpf_program__attach_perf_event": (c_void_p, c_void_p, c_int),
    "bpf_program__attach_raw_tracepoint": (c_void_p, c_void_p, c_char_p),
    "bpf_program__attach_tracepoint": (c_void_p, c_void_p, c_char_p, c_char_p),
    "bpf_program__attach_uprobe_opts": (c_void_p, c_void_p, c_int, c_char_p, c_size_t, c_void_p),
    "bpf_program__attach_usdt": (c_void_p, c_void_p, c_int, c_char_p, c_char_p, c_char_p, c_void_p),
    "bpf_map__attach_struct_ops": (c_void_p, c_void_p),
    "bpf_link__fd": (c_int, c_void_p),
    "bpf_link__destroy": (c_int, c_void_p),
    "bpf_tc_hook_create": (c_int, c_void_p),
    "bpf_tc_hook_destroy": (c_int, c_void_p),
    "bpf_tc_attach": (c_int, c_void_p, c_void_p),
    "bpf_tc_detach": (c_int, c_void_p, c_void_p),
    "bpf_xdp_attach": (c_int, c_int, c_int, c_uint32, c_void_p),
    # maps
    "bpf_map__name": (c_char_p, c_void_p),
    "bpf_map__type": (c_int, c_void_p),
    "bpf_map__fd": (c_int, c_void_p),
    "bpf_map__reuse_fd": (c_int, c_void_p, c_int),
    "bpf_map__set_max_entries": (c_int, c_void_p, c_uint32),
    "bpf_map__max_entries": (c_uint32, c_void_p),
    "bpf_map__key_size": (c_uint32, c_void_p),
    "bpf_map__value_size": (c_uint32, c_void_p),
    "bpf_map__set_value_size": (c_int, c_void_p, c_uint32),
    "bpf_map__set_key_size": (c_int, c_void_p, c_uint32),
    "bpf_map__btf_key_type_id": (c_uint32, c_void_p),
    "bpf_map__btf_value_type_id": (c_uint32, c_void_p),
    "bpf_map__is_internal": (c_bool, c_void_p),
    "bpf_map__initial_value": (c_void_p, c_void_p, POINTER(c_size_t)),
    "bpf_map__set_pin_path": (c_int, c_void_p, c_char_p),
    # probes
    "libbpf_probe_bpf_prog_type": (c_int, c_int, c_void_p),
    "libbpf_probe_bpf_map_type": (c_int, c_int, c_void_p),
    "libbpf_num_possible_cpus": (c_int,),
    "libbpf_bpf_prog_type_str": (c_char_p, c_int),
    "libbpf_bpf_map_type_str": (c_char_p, c_int),
    # bpf/bpf.h: bpf(2), a function a command
    "bpf_map_create": (c_int, c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p),
    "bpf_prog_load": (c_int, c_int, c_char_p, c_char_p, c_void_p, c_size_t, c_void_p),
    "bpf_map_update_elem": (c_int, c_int, c_void_p, c_void_p, c_uint64),
    "bpf_map_lookup_elem_flags": (c_int, c_int, c_void_p, c_void_p, c_uint64),
    "bpf_map_lookup_and_delete_elem": (c_int, c_int, c_void_p, c_void_p),
    "bpf_map_delete_elem": (c_int, c_int, c_void_p),
    "bpf_map_get_next_key": (c_int, c_int, c_void_p, c_void_p),
    "bpf_map_freeze": (c_int, c_int),
    "bpf_map_lookup_batch": (
        *(c_int, c_int, c_void_p, c_void_p, c_void_p, c_void_p),
        *(POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_update_batch": (
        *(c_int, c_int, c_void_p, c_void_p),
        *(POINTER(c_uint32), c_void_p),
    ),
    "bpf_map_delete_batch": (c_int, c_int, c_void_p, POINTER(c_uint32), c_void_p),
    "bpf_obj_pin": (c_int, c_int, c_char_p),
    "bpf_obj_get": (c_int, c_char_p),
    "bpf_obj_get_info_by_fd": (c_int, c_int, c_void_p, POINTER(c_uint32)),
    "bpf_prog_attach": (c_int, c_int, c_int, c_int, c_uint32),
    "bpf_prog_detach2": (c_int, c_int, c_int, c_int),
    "bpf_prog_query": (c_int, c_int, c_int, c_uint32, c_void_p, c_void_p, POINTER(c_uint32)),
    "bpf_link_create": (c_int, c_int, c_int, c_int, c_void_p),
    "bpf_iter_create": (c_int, c_int),
    "bpf_prog_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_map_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_link_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_prog_get_fd_by_id": (c_int, c_uint32),
    "bpf_map_get_fd_by_id": (c_int, c_uint32),
    "bpf_link_get_fd_by_id": (c_int, c_uint32),
    "bpf_task_fd_query": (
        *(c_int, c_int, c_int, c_uint32, c_void_p, POINTER(c_uint32), POINTER(c_uint32)),
        *(POINTER(c_uint32), POINTER(c_uint64), POINTER(c_uint64)),
    ),
    "bpf_prog_test_run_opts": (c_int, c_int, c_void_p),
    "bpf_enable_stats": (c_int, c_int),
    "bpf_raw_tracepoint_open": (c_int, c_char_p, c_int),
    # bpf/btf.h
    "bpf_btf_load": (c_int, c_void_p, c_size_t, c_void_p),
    "btf__free": (None, c_void_p),
    "btf__load_vmlinux_btf": (c_void_p,),
    "btf__load_from_kernel_by_id": (c_void_p, c_uint32),
    "btf__parse_raw": (c_void_p, c_char_p),
    "btf__find_by_name_kind": (c_int, c_void_p, c_char_p, c_uint32),
    "btf__type_cnt": (c_uint32, c_void_p),
    "btf__type_by_id": (c_void_p, c_void_p, c_uint32),
    "btf__name_by_offset": (c_char_p, c_void_p, c_uint32),
    "btf_dump__new": (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p),
    "btf_dump__free": (None, c_void_p),
    "btf_dump__dump_type": (c_int, c_void_p, c_uint32),
}
"""Result and argument types of every libbpf function in use."""

_messages = threading.local()


@cache
def library() -> ctypes.CDLL:
    """Return libbpf, loaded and told to keep its messages for :func:`messages`.

    Raises `UnavailableError` when there is none, or one older than `OLDEST`.
    """
    try:
        loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise UnavailableError(f"libbpf.so.1 cannot be loaded ({error}); {INSTALL}") from None
    version = (loaded.libbpf_major_version(), loaded.libbpf_minor_version())
    if version < OLDEST:
        have, need = (".".join(map(str, v)) for v in (version, OLDEST))
        raise UnavailableError(f"libbpf {have} is too old, {need} is needed; {INSTALL}")
    loaded.libbpf_set_print(_print)
    return loaded


@cache
def function(name: str) -> Callable[..., Any]:
    """Return the libbpf function ``name`` with its types set."""
    try:
        found = getattr(library(), name)
    except AttributeError:
        raise UnavailableError(f"libbpf {version()} has no {name}(); a newer one has") from None
    found.restype, *found.argtypes = SIGNATURES[name]
    return found  # type: ignore[no-any-return]


def version() -> str:
    """Return libbpf's version, as in ``"1.1"``."""
    return f"{library().libbpf_major_version()}.{library().libbpf_minor_version()}"


def call(name: str, *args: object) -> Any:
    """Call ``name`` and return its result; a failure is an `OSError` with libbpf's error code.

    libbpf 1.x returns a negative error code from functions that return an ``int``, and NULL with
    ``errno`` set from those that return a pointer.
    """
    called = function(name)
    result = called(*args)
    if called.restype is c_int and result < 0:  # type: ignore[attr-defined]
        raise OSError(-result, reason(-result), name)
    if called.restype is c_void_p and not result:  # type: ignore[attr-defined]
        code = ctypes.get_errno() or errnos.EINVAL
        raise OSError(code, reason(code), name)
    return result


def reason(code: int) -> str:
    """Return ``"ENOENT: No such file or directory"`` for an error code, libbpf's own included."""
    name = errnos.errorcode.get(code) or LIBBPF_ERRORS.get(code, str(code))
    return f"{name}: {os.strerror(code)}" if code in errnos.errorcode else name


LIBBPF_ERRORS = {
    4000: "LIBBPF: not a readable ELF file",
    4001: "LIBBPF: invalid object format",
    4002: "LIBBPF: no 'version' section",
    4003: "LIBBPF: byte order of another machine",
    4004: "LIBBPF: internal error",
    4005: "LIBBPF: relocation failed",
    4006: "LIBBPF: program failed to load",
    4007: "LIBBPF: program too big",
    4008: "LIBBPF: wrong kernel version",
    4009: "LIBBPF: wrong program type",
    4010: "LIBBPF: wrong pid in message",
    4011: "LIBBPF: invalid sequence",
    4012: "LIBBPF: parsing netlink failed",
}
"""``enum libbpf_errno`` of ``bpf/libbpf.h``."""


@contextmanager
def messages() -> Iterator[list[str]]:
    """Collect, one string a message, what libbpf warns about in this thread."""
    before = getattr(_messages, "lines", None)
    lines: list[str] = []
    _messages.lines = lines
    try:
        yield lines
    finally:
        _messages.lines = before


def _keep_message(level: int, text: int, arguments: int) -> int:
    """Take one message: a ``libbpf_print_fn_t``. Its va_list is passed on to the C library."""
    lines = getattr(_messages, "lines", None)
    if level == 0 and lines is not None:
        buffer = ctypes.create_string_buffer(4096)
        _libc().vsnprintf(buffer, c_size_t(len(buffer)), c_void_p(text), c_void_p(arguments))
        lines.append(buffer.value.decode(errors="replace").strip().removeprefix("libbpf: "))
    return 0


_print = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(_keep_message)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
