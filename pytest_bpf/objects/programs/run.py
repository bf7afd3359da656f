"""Running a program once or many times without attaching it: ``BPF_PROG_RUN``."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import NotMeasuredError, RunError, ValueTypeError
from pytest_bpf.kernel.programs.runner import DURATION, RETVAL, ROOM, Runner
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.libbpf_options import RunOptions
from pytest_bpf.kernel.values.actions import action, signed
from pytest_bpf.objects.programs.context import (
    FLOW_DISSECTOR,
    NO_CONTEXT,
    encode_context,
    flow_keys,
)
from pytest_bpf.objects.programs.run_refusals import RunRequest, run_error

if TYPE_CHECKING:
    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.objects.programs.context import Context
    from pytest_bpf.objects.programs.loaded import LoadedProgram

RUN_ON_CPU, LIVE_FRAMES = 1, 2
"""``BPF_F_TEST_RUN_ON_CPU`` and ``BPF_F_TEST_XDP_LIVE_FRAMES``."""

OUT_ROOM = 4096
"""Bytes that a program may add to its data."""

CONTEXT_ROOM = 1024
"""Bytes for the context that comes back: more than any struct of the kernel's ABI has."""


@dataclass(frozen=True)
class Run:
    """The result of one ``BPF_PROG_RUN``.

    ``retval`` is signed, and a member of an enumeration (`XdpAction`, `TcAction`, ...) where the
    program's kind has names for what it returns; None for live frames, of which the kernel tells
    no verdict. ``duration_ns`` is the kernel's average over the repetitions; it reads about 55 ns
    high, and the first run of a program is cold. ``data_out`` is the packet afterwards, and
    ``packet`` the same by layers. ``context`` is typed as the one passed, None without one and
    where the kernel gives none back. Of a flow dissector, ``context`` are the ``struct
    bpf_flow_keys`` that it filled in, and ``data_out`` their bytes.
    """

    retval: int
    duration_ns: int
    data_out: bytes
    context: Any = None
    recording: Any = field(default=None, repr=False, compare=False)
    has_keys: bool = field(default=False, repr=False, compare=False)
    """Whether it is of a flow dissector."""

    @cached_property
    def lines(self) -> Any:
        """The lines of C that this run took: a `LineCounts`.

        Raises `NotMeasuredError` when the program does not count its lines.
        """
        if self.recording is None:
            raise NotMeasuredError(
                "the lines of this run were not counted: let the test use the fixture bpf_lines, "
                "or run pytest with --bpf-cov"
            )
        return self.recording()

    @property
    def branches(self) -> Any:
        """The conditions that this run evaluated; the error is that of ``lines``."""
        return self.lines.branches

    @property
    def packet(self) -> Packet:
        """The packet afterwards, by layers; raises `RunError` where the run gave none back."""
        from pytest_bpf.kernel.layers.packet import Packet  # noqa: PLC0415 - by its first user
        from pytest_bpf.kernel.layers.recognition import first_layer  # noqa: PLC0415 - by its first user

        if self.has_keys:
            raise RunError("a flow dissector gives its keys back, no packet: see context")
        if not self.data_out:
            raise RunError("this run gave no packet back: it had none, or its frames were live")
        return Packet(self.data_out, first_layer(self.data_out) or "eth")


class _Memory(threading.local):
    """The options and buffers of one thread, used again by each run."""

    def __init__(self) -> None:
        self.options = RunOptions()
        self.reference = ctypes.byref(self.options)
        self.context = ctypes.create_string_buffer(CONTEXT_ROOM)
        self.context_address = ctypes.addressof(self.context)
        self.make_room(OUT_ROOM)

    def make_room(self, size: int) -> None:
        """Make room for ``size`` bytes of data that come back."""
        self.data = ctypes.create_string_buffer(size)
        self.address, self.room = ctypes.addressof(self.data), size

    @cached_property
    def runner(self) -> Runner:
        """What runs packets that need no options."""
        return Runner()


_memory = _Memory()


def run_packet(program: LoadedProgram, data: bytes) -> Run:
    """Run once with a packet and nothing else: what most tests do, some of them very often."""
    if not program.runs_packets or not 0 < len(data) <= ROOM:
        return run_program(program, data, None)
    runner = _memory.runner
    packet = runner.run(program.fd, data)
    if packet is None:
        request = RunRequest(program, "packet", data, NO_CONTEXT)
        raise run_error(request, ctypes.get_errno())
    retval, duration, names = runner.words[RETVAL], runner.words[DURATION], program.actions
    result = object.__new__(Run)  # the constructor of a frozen dataclass takes three times as long
    members = result.__dict__
    members["retval"] = names[retval] if retval in names else signed(retval)
    members["duration_ns"] = duration
    members["data_out"] = packet
    members["context"] = None
    return result


def run_program(  # noqa: PLR0917 (positional arguments are faster)
    program: LoadedProgram,
    data: Any,
    context: Any,
    repeat: int = 1,
    cpu: int | None = None,
    live: bool = False,
    batch_size: int = 0,
    netns: Any = None,
) -> Run:
    """Run ``program``; see `Program.test_run`."""
    if type(data) is not bytes:
        data = _bytes(program, data)
    if not (type(repeat) is int and 0 < repeat < 2**31):
        raise _wrong(program, "repeat", repeat, "from 1 to 2147483647")
    if not (cpu is None or (type(cpu) is int and 0 <= cpu < 2**31)):
        raise _wrong(program, "cpu", cpu, "the number of a CPU")
    if not (type(batch_size) is int and 0 <= batch_size < 2**32):
        raise _wrong(program, "batch_size", batch_size, "from 0 to 4294967295")
    place = netns
    checked = NO_CONTEXT
    if context is not None:
        checked = encode_context(program, context, len(data))
        place = _place(program, netns, checked)
    if place is None:
        return _run(program, data, checked, repeat, cpu, live, batch_size)
    if not hasattr(place, "run"):
        raise _wrong(program, "netns", netns, "a Namespace")
    result: Run = place.run(_run, program, data, checked, repeat, cpu, live, batch_size)
    return result


def _run(  # noqa: PLR0917 (positional arguments are faster)
    program: LoadedProgram,
    data: bytes,
    context: Context,
    repeat: int,
    cpu: int | None,
    live: bool,
    batch_size: int,
) -> Run:
    """Run in this thread, whose network namespace is the right one."""
    memory, raw, mode = _memory, context.raw, program.kind.test_run
    packet = mode == "packet"
    options = memory.options
    options.repeat = repeat if packet else 0
    options.batch_size = batch_size
    options.flags = (RUN_ON_CPU if cpu is not None else 0) | (LIVE_FRAMES if live else 0)
    options.cpu = cpu or 0
    options.retval = options.duration = 0  # the kernel refuses others for some kinds
    options.data_in = data or None
    options.data_size_in = len(data)
    with_data = bool(data) and not live
    if with_data and memory.room < len(data) + OUT_ROOM:
        memory.make_room(len(data) + OUT_ROOM)
    options.data_out = memory.address if with_data else None
    options.data_size_out = memory.room if with_data else 0
    options.ctx_in = raw or None
    options.ctx_size_in = len(raw)
    gives_keys = program.type == FLOW_DISSECTOR  # and leaves the context that it got as it was
    returns_context = bool(raw) and not (live or gives_keys) and mode in {"packet", "socket"}
    options.ctx_out = memory.context_address if returns_context else None
    options.ctx_size_out = CONTEXT_ROOM if returns_context else 0
    argument = None
    if raw and not returns_context:  # a syscall program changes its context in place
        argument = ctypes.create_string_buffer(raw, len(raw))
        options.ctx_in = ctypes.cast(argument, ctypes.c_char_p)
    function, fd = libbpf.function("bpf_prog_test_run_opts"), program.fd
    for _ in range(1 if packet else repeat):  # the kernel repeats packet programs alone
        code = function(fd, memory.reference)
        if code < 0:
            flags = {"cpu": cpu, "live": live, "batch_size": batch_size}
            raise run_error(RunRequest(program, mode, data, context, flags), -code)
    returned = b""
    if returns_context and options.ctx_size_out < CONTEXT_ROOM:  # else the kernel gave none back
        returned = ctypes.string_at(memory.context_address, options.ctx_size_out)
    elif argument is not None and mode == "context":
        returned = argument.raw
    data_out = ctypes.string_at(memory.address, options.data_size_out) if with_data else b""
    verdict: Any = None if live else action(program.type, options.retval, program.kind.name)
    return Run(
        verdict,
        options.duration,
        data_out,
        flow_keys(data_out) if gives_keys else context.decode(returned) if returned else None,
        has_keys=gives_keys,
    )


def _bytes(program: LoadedProgram, data: Any) -> bytes:
    if not isinstance(data, (int, str)):
        try:
            return bytes(data)
        except (TypeError, ValueError):
            pass
    raise ValueTypeError(
        f"program {program.name!r} is test-run with the bytes of a packet, "
        f"not {type(data).__name__} {data!r:.60}"
    )


def _place(program: LoadedProgram, netns: Any, context: Context) -> Any:
    """Return the namespace to run in: the one asked for, or that of the context's interfaces."""
    if netns is not None and context.namespace not in (None, netns):
        raise RunError(
            f"program {program.name!r}: netns is {netns.name!r}, but an interface of the context "
            f"is in {context.namespace.name!r}; leave netns out"
        )
    return netns if netns is not None else context.namespace


def _wrong(program: LoadedProgram, name: str, value: object, takes: str) -> RunError:
    return RunError(
        f"program {program.name!r} cannot be test-run with {name}={value!r}; it is {takes}"
    )
