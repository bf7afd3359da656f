"""libbpf through ctypes: its functions by name, its messages as text, its codes as exceptions.

Nothing here interprets BPF; the names and the order of arguments are those of ``bpf/libbpf.h``,
``bpf/bpf.h`` and ``bpf/btf.h``. The library is loaded by the first call, not by the import.
"""

from __future__ import annotations

import ctypes
import errno as errnos
import os
import re
import threading
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pytest_bpf.errors import PrivilegeError, UnavailableError
from pytest_bpf.kernel.sys import capabilities, libc
from pytest_bpf.kernel.sys.interrupts import call_uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


P = ParamSpec("P")
T = TypeVar("T")

SYSTEM = "libbpf.so.1"
"""The name by which the system's libbpf is found."""

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
    "bpf_object__find_program_by_name": (c_void_p, c_void_p, c_char_p),
    "libbpf_register_prog_handler": (c_int, c_char_p, c_int, c_int, c_void_p),
    "libbpf_prog_type_by_name": (c_int, c_char_p, POINTER(c_int), POINTER(c_int)),
    # linking
    "bpf_linker__new": (c_void_p, c_char_p, c_void_p),
    "bpf_linker__add_file": (c_int, c_void_p, c_char_p, c_void_p),
    "bpf_linker__finalize": (c_int, c_void_p),
    "bpf_linker__free": (None, c_void_p),
    # programs
    "bpf_program__name": (c_char_p, c_void_p),
    "bpf_program__section_name": (c_char_p, c_void_p),
    "bpf_program__autoload": (c_bool, c_void_p),
    "bpf_program__set_autoload": (c_int, c_void_p, c_bool),
    "bpf_program__autoattach": (c_bool, c_void_p),
    "bpf_program__type": (c_int, c_void_p),
    "bpf_program__set_type": (c_int, c_void_p, c_int),
    "bpf_program__flags": (c_uint32, c_void_p),
    "bpf_program__set_flags": (c_int, c_void_p, c_uint32),
    "bpf_program__expected_attach_type": (c_int, c_void_p),
    "bpf_program__set_expected_attach_type": (c_int, c_void_p, c_int),
    "bpf_program__log_level": (c_uint32, c_void_p),
    "bpf_program__set_attach_target": (c_int, c_void_p, c_int, c_char_p),
    "bpf_program__set_log_level": (c_int, c_void_p, c_uint32),
    "bpf_program__set_log_buf": (c_int, c_void_p, c_void_p, c_size_t),
    "bpf_program__fd": (c_int, c_void_p),
    "bpf_program__insn_cnt": (c_size_t, c_void_p),
    "bpf_program__insns": (c_void_p, c_void_p),
    # attaching
    "bpf_program__attach": (c_void_p, c_void_p),
    "bpf_program__attach_usdt": (c_void_p, c_void_p, c_int, c_char_p, c_char_p, c_char_p, c_void_p),
    "bpf_map__attach_struct_ops": (c_void_p, c_void_p),
    "bpf_link__fd": (c_int, c_void_p),
    "bpf_link__destroy": (c_int, c_void_p),
    "bpf_tc_hook_create": (c_int, c_void_p),
    "bpf_tc_hook_destroy": (c_int, c_void_p),
    "bpf_tc_attach": (c_int, c_void_p, c_void_p),
    "bpf_tc_detach": (c_int, c_void_p, c_void_p),
    "bpf_xdp_attach": (c_int, c_int, c_int, c_uint32, c_void_p),
    "bpf_xdp_detach": (c_int, c_int, c_uint32, c_void_p),
    "bpf_xdp_query_id": (c_int, c_int, c_int, c_void_p),
    "bpf_xdp_query": (c_int, c_int, c_int, c_void_p),
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
    "bpf_map__map_flags": (c_uint32, c_void_p),
    "bpf_map__set_autocreate": (c_int, c_void_p, c_bool),
    "bpf_map__set_pin_path": (c_int, c_void_p, c_char_p),
    "bpf_map__pin_path": (c_char_p, c_void_p),
    "bpf_map__set_type": (c_int, c_void_p, c_int),
    "bpf_map__set_map_flags": (c_int, c_void_p, c_uint32),
    "bpf_map__map_extra": (c_uint64, c_void_p),
    "bpf_map__autocreate": (c_bool, c_void_p),
    "bpf_map__inner_map": (c_void_p, c_void_p),
    "bpf_map__set_inner_map_fd": (c_int, c_void_p, c_int),
    "user_ring_buffer__new": (c_void_p, c_int, c_void_p),
    "user_ring_buffer__reserve": (c_void_p, c_void_p, c_uint32),
    "user_ring_buffer__submit": (None, c_void_p, c_void_p),
    "user_ring_buffer__free": (None, c_void_p),
    # probes
    "libbpf_probe_bpf_prog_type": (c_int, c_int, c_void_p),
    "libbpf_probe_bpf_map_type": (c_int, c_int, c_void_p),
    "libbpf_num_possible_cpus": (c_int,),
    "libbpf_bpf_prog_type_str": (c_char_p, c_int),
    "libbpf_bpf_map_type_str": (c_char_p, c_int),
    "libbpf_bpf_attach_type_str": (c_char_p, c_int),
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
    "bpf_prog_query": (c_int, c_int, c_int, c_uint32, c_void_p, c_void_p, POINTER(c_uint32)),
    "bpf_link_create": (c_int, c_int, c_int, c_int, c_void_p),
    "bpf_iter_create": (c_int, c_int),
    "bpf_prog_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_map_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_link_get_next_id": (c_int, c_uint32, POINTER(c_uint32)),
    "bpf_prog_get_fd_by_id": (c_int, c_uint32),
    "bpf_map_get_fd_by_id": (c_int, c_uint32),
    "bpf_link_get_fd_by_id": (c_int, c_uint32),
    "bpf_btf_get_fd_by_id": (c_int, c_uint32),
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
    "btf__load_module_btf": (c_void_p, c_char_p, c_void_p),
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

LOGGERS = frozenset(
    name
    for name in SIGNATURES
    if re.search(r"__(open|load|attach|set|reuse|new|add|finalize|parse|dump|destroy|update)", name)
)
"""What may call back into Python, to log; the others only look into libbpf's memory, or free it."""

_messages = threading.local()


_choices: list[list[str]] = []
"""The path of the libbpf that each session uses, the innermost session last."""


def per_library(getter: Callable[P, T]) -> Callable[P, T]:
    """Return a function that keeps its results for each libbpf that is used."""
    kept = cache(lambda _library, *args: getter(*args))  # type: ignore[call-arg]

    @wraps(getter)
    def get(*args: P.args, **_: P.kwargs) -> T:
        return kept(path(), *args)

    return get


def choose(library_path: Path | None) -> Callable[[], None]:
    """Use another libbpf: the file, the folder that has it, or with None the system's.

    Returns what undoes that. An object keeps the memory of the libbpf that opened it, so close
    those that are opened meanwhile before.
    """
    choice = [_file(library_path) if library_path else SYSTEM]
    _choices.append(choice)

    def undo() -> None:
        _choices[:] = [other for other in _choices if other is not choice]

    return undo


@per_library
def library() -> ctypes.CDLL:
    """Return libbpf, loaded and told to keep its messages for :func:`messages`.

    It is the one given to `choose`, that of ``$PYTEST_BPF_LIBBPF``, or the system's. Raises
    `UnavailableError` when there is none, or one older than `OLDEST`.
    """
    file = path()
    hint = f"; {INSTALL}" if file == SYSTEM else ""
    try:
        loaded = ctypes.CDLL(file, use_errno=True)
        version = (loaded.libbpf_major_version(), loaded.libbpf_minor_version())
    except OSError as error:
        raise UnavailableError(f"{file} cannot be loaded ({error}){hint}") from None
    except AttributeError:
        raise UnavailableError(f"{file} is no libbpf, or older than 0.6{hint}") from None
    if version < OLDEST:
        have, need = (".".join(map(str, v)) for v in (version, OLDEST))
        raise UnavailableError(f"{file} is libbpf {have}, {need} is needed{hint}")
    loaded.libbpf_set_print(_print)
    return loaded


def path() -> str:
    """Return the file of the libbpf in use, or `SYSTEM`, which the dynamic linker finds."""
    return _choices[-1][0] if _choices else _default()


@cache
def _default() -> str:
    """Return the path of the libbpf that is used where no session has chosen one."""
    text = os.environ.get("PYTEST_BPF_LIBBPF", "")
    return _file(Path(text)) if text else SYSTEM


def forget_default() -> None:
    """Have the environment read again: a process that was saved wakes up in another one."""
    _default.cache_clear()


def _file(choice: Path) -> str:
    """Return the file of a libbpf that was chosen, itself or by its folder."""
    return str(choice.absolute() / SYSTEM if choice.is_dir() else choice)


@per_library
def function(name: str) -> Callable[..., Any]:
    """Return the libbpf function ``name`` with its types set."""
    try:
        symbol = getattr(library(), name)
    except AttributeError:
        raise UnavailableError(
            f"libbpf {version()} has no {name}(); a newer one has: give it by --bpf-libbpf"
        ) from None
    symbol.restype, *symbol.argtypes = SIGNATURES[name]
    return symbol  # type: ignore[no-any-return]


def has(name: str) -> bool:
    """Say whether this libbpf has the function ``name``."""
    return hasattr(library(), name)


def version() -> str:
    """Return libbpf's version, as in ``"1.1"``."""
    return f"{library().libbpf_major_version()}.{library().libbpf_minor_version()}"


def call(name: str, *args: object) -> Any:
    """Call ``name`` and return its result; a failure is an `OSError` with libbpf's error code.

    Without the capability for it, it is a `PrivilegeError`.

    libbpf 1.x returns a negative error code from functions that return an ``int``, and NULL with
    ``errno`` set from those that return a pointer.
    """
    called = function(name)
    result = call_uninterrupted(called, *args) if name in LOGGERS else called(*args)
    if called.restype is c_int and result < 0:  # type: ignore[attr-defined]
        raise _failure(name, -result)
    if called.restype is c_void_p and not result:  # type: ignore[attr-defined]
        raise _failure(name, ctypes.get_errno() or errnos.EINVAL)
    return result


PRIVILEGES = {
    "bpf_map_create": ("creating a map", "CAP_BPF"),
    "bpf_prog_load": ("loading a program", "CAP_BPF"),
    "bpf_object__load": ("loading an object", "CAP_BPF"),
    "bpf_enable_stats": ("switching the kernel's BPF statistics on", "CAP_SYS_ADMIN"),
    **{
        f"bpf_{kind}_{function}": (f"looking at the kernel's {kind}s", "CAP_SYS_ADMIN")
        for kind in ("prog", "map", "link")
        for function in ("get_next_id", "get_fd_by_id")
    },
}
"""By function, what it does and the capability that this takes."""


def _failure(name: str, code: int) -> OSError:
    if code == errnos.EPERM and name in PRIVILEGES:
        action, capability = PRIVILEGES[name]
        if not (capabilities.has(capability) or capabilities.has("CAP_SYS_ADMIN")):
            return PrivilegeError(action, capability)
    return OSError(code, reason(code), name)


def reason(code: int) -> str:
    """Return ``"ENOENT: No such file or directory"`` for an error code, libbpf's own included."""
    name = _error_text(code)
    return f"{name}: {os.strerror(code)}" if code in errnos.errorcode else name


def error_name(code: int) -> str:
    """Return ``"ENOENT"`` for 2, ``"ENOTSUPP"`` for 524, which only the kernel has."""
    return _error_text(code).partition(":")[0]


def _error_text(code: int) -> str:
    text = errnos.errorcode.get(code) or KERNEL_ERRORS.get(code) or LIBBPF_ERRORS.get(code)
    return text or str(code)


KERNEL_ERRORS = {
    512: "ERESTARTSYS: interrupted by a signal",
    514: "ERESTARTNOHAND: interrupted by a signal",
    517: "EPROBE_DEFER: try again later",
    518: "EOPENSTALE: the file is gone",
    521: "EBADHANDLE",
    524: "ENOTSUPP: the kernel does not support that",
    525: "ETOOSMALL: the buffer is too small",
    526: "ESERVERFAULT: an error that has no number",
    527: "EBADTYPE: type not supported",
    528: "EJUKEBOX: it takes long, try again later",
    529: "EIOCBQUEUED",
}
"""Those of ``linux/errno.h`` that reach user space now and then, although they should not."""

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
    if level:  # libbpf has hundreds of these in one load
        return 0
    lines = getattr(_messages, "lines", None)
    if lines is not None:
        buffer = ctypes.create_string_buffer(4096)
        libc.library().vsnprintf(buffer, c_size_t(len(buffer)), c_void_p(text), c_void_p(arguments))
        lines.append(buffer.value.decode(errors="replace").strip().removeprefix("libbpf: "))
    return 0


_print = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(_keep_message)
