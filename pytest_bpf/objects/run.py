"""Running a program once or many times without attaching it: ``BPF_PROG_RUN``."""

from __future__ import annotations

import ctypes
import errno
import struct
from ctypes import c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import RunError, ValueTypeError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.batches import NOT_SUPPORTED
from pytest_bpf.kernel.libbpf_options import RunOptions
from pytest_bpf.kernel.values import codec

if TYPE_CHECKING:
    from pytest_bpf.kernel.btf import Type
    from pytest_bpf.objects.loaded import LoadedProgram

RUN_ON_CPU, LIVE_FRAMES = 1, 2
"""``BPF_F_TEST_RUN_ON_CPU`` and ``BPF_F_TEST_XDP_LIVE_FRAMES``."""

OUT_ROOM = 4096
"""How many bytes a program may add to the data that it is given."""

PACKET_TYPES = frozenset(
    {"xdp", "sched_cls", "sched_act", "cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit", "sk_skb"}
    | {"socket_filter", "flow_dissector", "netfilter", "lwt_seg6local"}
)


@dataclass(frozen=True)
class Run:
    """What one ``BPF_PROG_RUN`` gave.

    ``duration_ns`` is the kernel's average over the repetitions; it reads about 55 ns high, and
    the first run of a program is cold. ``context`` is typed as it was given, None without one.
    """

    retval: int
    duration_ns: int
    data_out: bytes
    context: Any = None


def run_program(
    program: LoadedProgram,
    data: bytes,
    context: Any,
    *,
    repeat: int = 1,
    cpu: int | None = None,
    live: bool = False,
    batch_size: int = 0,
) -> Run:
    """Run ``program``; see `Program.test_run`."""
    if not 0 < repeat < 2**31 or not 0 <= (cpu or 0) < 2**31:
        raise RunError(f"program {program.name!r} cannot be test-run with {repeat=}, {cpu=}")
    packet = program.type in PACKET_TYPES
    options = RunOptions(repeat=repeat if packet else 0, batch_size=batch_size)
    options.flags = (RUN_ON_CPU if cpu is not None else 0) | (LIVE_FRAMES if live else 0)
    options.cpu = cpu or 0
    out = ctypes.create_string_buffer(len(data) + OUT_ROOM)
    if data:
        options.data_in = ctypes.cast(ctypes.c_char_p(data), c_void_p)
        options.data_size_in = len(data)
        if not live:
            options.data_out = ctypes.cast(out, c_void_p)
            options.data_size_out = len(out)
    raw = _context(program, context)
    given, returned = (ctypes.create_string_buffer(raw, len(raw)) for _ in range(2))
    if raw:
        options.ctx_in = ctypes.cast(given, c_void_p)
        options.ctx_size_in = len(raw)
    if raw and packet and not live:
        options.ctx_out = ctypes.cast(returned, c_void_p)
        options.ctx_size_out = len(raw)
    try:
        for _ in range(1 if packet else repeat):  # the kernel repeats packet programs alone
            libbpf.call("bpf_prog_test_run_opts", program.fd, ctypes.byref(options))
    except OSError as error:
        raise _refused(program, len(data), cpu, error) from None
    after = returned if options.ctx_out else given  # a syscall program's is changed in place
    return Run(
        options.retval,
        options.duration,
        out.raw[: options.data_size_out] if options.data_out else b"",
        _typed(program.context_type, after.raw),
    )


def _context(program: LoadedProgram, context: Any) -> bytes:
    """Return a context's bytes: by its struct in the BTF, or 64-bit words for raw tracepoints."""
    if context is None:
        return b""
    if isinstance(context, (bytes, bytearray)):
        return bytes(context)
    of, what = program.context_type, f"context of {program.name!r}"
    if program.type in {"raw_tracepoint", "raw_tracepoint_writable"}:
        words = context if isinstance(context, (tuple, list)) else ()
        if not words or not all(isinstance(word, int) for word in words):
            raise ValueTypeError(
                f"{what}: a raw tracepoint takes a sequence of its arguments as integers, "
                f"not {context!r}"
            )
        return struct.pack(f"={len(words)}Q", *(word % 2**64 for word in words))
    if of is None or not of.size:
        raise ValueTypeError(f"{what}: its BTF does not say what it is, pass bytes")
    return codec(of).encode(context, what)


def _typed(of: Type | None, raw: bytes) -> Any:
    if not raw:
        return None
    return codec(of).decode(raw, 0) if of is not None and of.size == len(raw) else raw


def _refused(program: LoadedProgram, size: int, cpu: int | None, error: OSError) -> RunError:
    code = error.errno or 0
    hint = ""
    if code == errno.ENXIO and cpu is not None:
        hint = f"; CPU {cpu} is not online"
    elif code in {NOT_SUPPORTED, errno.ENOTSUP}:
        hint = f"; the kernel has no test run for {program.type} programs, attach it instead"
    elif code == errno.EINVAL and program.type in PACKET_TYPES and size < 14:
        hint = f"; a {program.type} program needs data of at least an Ethernet header, 14 bytes"
    elif code == errno.EINVAL:
        hint = "; the data, the context or a flag does not fit this program type"
    return RunError(
        f"program {program.name!r} ({program.type}) cannot be test-run with {size} bytes of data: "
        f"{libbpf.reason(code)}{hint}",
        code,
    )
