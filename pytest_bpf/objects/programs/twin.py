"""A loaded program once more, with counters between its instructions, over the same maps."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import LoadError
from pytest_bpf.kernel.btf.enums import program_type_id
from pytest_bpf.kernel.programs.counters import Build, TooLongError, build
from pytest_bpf.kernel.programs.flow import TO_KFUNC, flow
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.info import ProgramInfo, fill_info, read_info
from pytest_bpf.kernel.sys.libbpf_options import LoadOptions, MapOptions
from pytest_bpf.kinds.flags import MapFlags, ProgramFlags
from pytest_bpf.kinds.programs import parse_section
from pytest_bpf.objects.identity import Identity
from pytest_bpf.objects.programs.origins import origins
from pytest_bpf.objects.programs.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_bpf.kernel.programs.counters import Mode
    from pytest_bpf.kernel.programs.flow import Flow

ARRAY = 2
"""``BPF_MAP_TYPE_ARRAY``."""

LOG_SIZE = 1 << 20


class LogTooLongError(LoadError):
    """The verifier's log does not fit into its buffer."""


SLEEPABLE_SECTIONS = ("syscall",)
"""Sections whose programs may sleep without ``.s``."""


class Twin:
    """A program with counters: a second load of it, which shares the maps of the first.

    ``program`` is it, to attach and to run, and ``fd`` its descriptor; ``build`` says what its
    counters belong to, and ``counters`` is their memory, as the program writes it. ``pins`` are the
    answers of pinned helpers, in the order of `Build.pins`. `close` lets it go.
    """

    def __init__(
        self,
        program: Program,
        mode: Mode,
        pins: Sequence[int] = (),
        gate: tuple[int, int] | None = None,
    ) -> None:
        """Load it; ``pins`` are helpers that answer what `set_pin` says: clocks, random numbers.

        ``gate`` is as `build` has it. Raises `LoadError`.
        """
        self.gate = gate
        with ExitStack() as failure:
            code = flow(instructions(program))
            size = _build(program, code, mode, 0, pins, gate).room
            self._map_fd = mmapable_array(size)
            failure.callback(os.close, self._map_fd)
            self.build: Build = _build(program, code, mode, self._map_fd, pins, gate)
            whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self.memory = mmap.mmap(self._map_fd, whole, mmap.MAP_SHARED)
            failure.callback(self.memory.close)
            self.fd = _load(program, self.build)
            failure.pop_all()
        whole_memory = memoryview(self.memory)
        self.counters = whole_memory[: self.build.size]
        self.pins = whole_memory[self.build.pins_at : self.build.room].cast("Q")
        self.program = _program(program, self.fd)
        self._closed = False

    def counts(self) -> list[int]:
        """Return the counters of a ``hit`` or ``count`` build, in the order of `Build.places`."""
        return list(self.counters if self.build.mode == "hit" else self.counters.cast("Q"))

    def operands(self) -> list[tuple[int, int]]:
        """Return what each comparison of an ``operands`` build compared last, (0, 0) at first."""
        values = self.counters.cast("Q").tolist()
        return list(zip(values[::2], values[1::2], strict=True))

    def set_pin(self, helper: int, answer: int) -> None:
        """Set what a pinned helper returns from now on, as a number of 64 bits."""
        self.pins[self.build.pins.index(helper)] = answer

    def clear(self) -> None:
        """Set all counters to 0."""
        self.counters[:] = bytes(self.build.size)

    def close(self) -> None:
        """Unload it; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.program.close()
            self.counters.release()
            self.pins.release()
            self.memory.close()
            os.close(self.fd)
            os.close(self._map_fd)

    def __enter__(self) -> Twin:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_numbered(program: Program) -> tuple[int, Flow]:
    """Load a program as it ships, each instruction on a line of its own: that of its number.

    Return the descriptor, which the caller closes, and the instructions. Raises `LoadError`.
    """
    code = flow(instructions(program))
    count = len(code.instructions)
    same = Build("hit", code, instructions(program), (), {}, tuple(range(count)), 0)
    lines = {at: struct.pack("=3I", 0, 0, at << 10) for at in range(count) if at not in code.second}
    return _load(program, same, lines), code


def load_with_log(program: Program, log: Any) -> Flow:
    """Load a program as it ships once more, for the verifier's log of level 2, and let it go.

    ``log`` is the buffer, as a `ctypes` array. Return the instructions. Raises `LogTooLongError`
    when the log does not fit, and `LoadError`.
    """
    code = flow(instructions(program))
    count = len(code.instructions)
    same = Build("hit", code, instructions(program), (), {}, tuple(range(count)), 0)
    os.close(_load(program, same, {}, log))
    return code


def _program(like: Program, fd: int) -> Program:
    place = (like.type, like.section, like.expected_attach_type)
    return Program(Identity(fd, like.name, *place), context_type=like.context_type)


def instructions(program: Program) -> bytes:
    """Return the instructions that libbpf handed to the kernel, maps and types put in.

    Raises `LoadError` for a program that libbpf did not load in this process.
    """
    program.fd  # noqa: B018 (a closed program raises)
    if not program.pointer:
        raise LoadError(
            f"program {program.name!r} was not loaded from an object of this process, so its "
            "instructions are not known as they were loaded"
        )
    count = libbpf.call("bpf_program__insn_cnt", program.pointer)
    return ctypes.string_at(libbpf.call("bpf_program__insns", program.pointer), 8 * count)


def _build(  # noqa: PLR0917 (a function of this file)
    program: Program,
    code: Flow,
    mode: Mode,
    fd: int,
    pins: Sequence[int],
    gate: tuple[int, int] | None,
) -> Build:
    try:
        return build(code, mode, fd, pins, gate)
    except TooLongError as error:
        raise LoadError(
            f"program {program.name!r} cannot be loaded with counters: {error}"
        ) from None


def mmapable_array(size: int) -> int:
    """Return the descriptor of an array with one value of so many bytes, which can be mapped."""
    options = MapOptions(map_flags=MapFlags.MMAPABLE)
    fd: int = libbpf.call("bpf_map_create", ARRAY, b"counters", 4, size, 1, ctypes.byref(options))
    return fd


def _load(
    program: Program,
    made: Build,
    lines: Mapping[int, bytes] | None = None,
    trace: Any = None,
) -> int:
    """Load a build.

    ``lines`` are records of lines in place of the program's own; ``trace`` is a buffer for the log.
    """
    if any(i.code == 0x85 and i.of == TO_KFUNC and i.offset for i in made.flow.instructions):
        raise LoadError(
            f"program {program.name!r} calls functions of a kernel module; such a program cannot "
            "be loaded with counters"
        )
    info = read_info(program.fd, ProgramInfo)
    log = ctypes.create_string_buffer(LOG_SIZE)
    options = LoadOptions(
        expected_attach_type=program.expected_attach_type,
        prog_flags=_flags(program),
        attach_btf_id=info.attach_btf_id,
    )
    license_ = b"GPL" if info.gpl_compatible else b"Proprietary"
    name = info.name[:12] + b"_" + made.mode[:2].encode()
    arguments = (program_type_id(program.type), name, license_, made.code, len(made.code) // 8)
    if trace is not None:
        options.log_level, options.log_size = 2 | libbpf.LOG_STATS, len(trace)
        options.log_buf = ctypes.addressof(trace)
    with _types(program, info, made, options, lines):
        try:
            fd: int = libbpf.call("bpf_prog_load", *arguments, ctypes.byref(options))
        except OSError as error:
            if trace is not None and error.errno == errno.ENOSPC:
                raise LogTooLongError(f"a log of more than {len(trace):,} bytes") from None
            options.log_level, options.log_size = 1, LOG_SIZE
            options.log_buf = ctypes.addressof(log)
            try:
                fd = libbpf.call("bpf_prog_load", *arguments, ctypes.byref(options))
            except OSError as error:
                raise _refusal(program, error, log.value.decode(errors="replace")) from None
    return fd


def _refusal(program: Program, error: OSError, log: str) -> LoadError:
    lines = [line for line in log.splitlines() if line and not line.startswith("processed ")]
    why = lines[-1] if lines else error.strerror
    return LoadError(
        f"program {program.name!r} cannot be loaded with counters: {why}", error.errno or 0
    )


def _flags(program: Program) -> int:
    flags: int = libbpf.call("bpf_program__flags", program.pointer)
    parsed = parse_section(program.section)
    if program.section.startswith("xdp.frags"):
        flags |= ProgramFlags.XDP_HAS_FRAGS
    if (parsed is not None and parsed.sleepable) or program.section in SLEEPABLE_SECTIONS:
        flags |= ProgramFlags.SLEEPABLE
    return flags


@contextmanager
def _types(
    program: Program,
    info: ProgramInfo,
    made: Build,
    options: Any,
    lines: Mapping[int, bytes] | None,
) -> Iterator[None]:
    """Fill in the program's types and lines and what it attaches to, for the time of the load."""
    with ExitStack() as keep:
        if info.attach_btf_id and info.attach_btf_obj_id:
            options.attach_btf_obj_fd = _btf_fd(info.attach_btf_obj_id, keep)
            target = program.load_target
            if target is not None:
                options.attach_prog_fd, options.attach_btf_obj_fd = target.fd, 0
        if info.btf_id:
            buffers = _records(program, info, made)
            if buffers is not None and lines is not None:
                buffers = (buffers[0], lines)
            if buffers is not None:
                options.prog_btf_fd = _btf_fd(info.btf_id, keep)
                for kind, records in zip(("func_info", "line_info"), buffers, strict=True):
                    if not records:
                        continue
                    size = len(next(iter(records.values()))) + 4
                    raw = b"".join(struct.pack("=I", at) + r for at, r in records.items())
                    buffer = ctypes.create_string_buffer(raw, len(raw))
                    keep.callback(id, buffer)  # alive until the load is over
                    setattr(options, kind, ctypes.addressof(buffer))
                    setattr(options, f"{kind}_cnt", len(records))
                    setattr(options, f"{kind}_rec_size", size)
        yield


def _btf_fd(number: int, keep: ExitStack) -> int:
    fd: int = libbpf.call("bpf_btf_get_fd_by_id", number)
    keep.callback(os.close, fd)
    return fd


def _records(
    program: Program, info: ProgramInfo, made: Build
) -> tuple[Mapping[int, bytes], Mapping[int, bytes]] | None:
    """Return the records of functions and lines by the new instructions; None without any."""
    places = origins(program.content, program.name, made.flow)
    if places is not None and set(places.func_info) >= set(made.flow.functions):
        return tuple(  # type: ignore[return-value]
            {made.starts[at]: rest for at, rest in records.items()}
            for records in (places.func_info, places.line_info)
        )
    types = _function_types(program.fd, info)
    if len(types) != len(made.flow.functions):
        return None
    pairs = zip(made.flow.functions, types, strict=True)
    return {made.starts[at]: kind for at, kind in pairs}, {}


def _function_types(fd: int, info: ProgramInfo) -> list[bytes]:
    """Return the types of the functions that the kernel has of a program, in their order."""
    count = info.nr_func_info
    if not count:
        return []
    records = (ctypes.c_uint32 * (2 * count))()
    wanted = ProgramInfo(nr_func_info=count, func_info_rec_size=8)
    wanted.func_info = ctypes.addressof(records)
    fill_info(fd, wanted)
    return [struct.pack("=I", kind) for kind in records[1::2]]
