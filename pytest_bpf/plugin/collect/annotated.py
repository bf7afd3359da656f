"""Run one annotated program: load it as its annotations say, and hold the answer against them."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.features.helpers import helper_ids
from pytest_bpf.kernel.features.privilege import privilege
from pytest_bpf.kernel.sys import capabilities, libbpf, streams
from pytest_bpf.kernel.sys.libbpf_options import RunOptions
from pytest_bpf.kernel.sys.release import config
from pytest_bpf.objects import refusals
from pytest_bpf.objects.loading.alone import Answer, load_alone
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.programs.dumps import Instruction, xlated
from pytest_bpf.objects.programs.llvm import machine_text
from pytest_bpf.plugin.collect import conditions
from pytest_bpf.plugin.collect.expectation import (
    POINTER_VALUES,
    TEST_DATA_LEN,
    AnnotationError,
    mismatch,
)
from pytest_bpf.plugin.collect.patience import within_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_bpf.plugin.collect.expectation import Annotations, Expectation, Pattern

CALL = 0x85
"""The code of a call: ``BPF_JMP | BPF_CALL``."""

INJECTION = "CONFIG_FUNCTION_ERROR_INJECTION"
NOT_INJECTABLE = re.compile(r"\w(\(\))? is not (sleepable|modifiable)$", re.MULTILINE)
"""What the verifier says of a function to attach to that is not on the list of this option."""

LOG_LINES = 40
"""Lines of the verifier's log in a failure."""

SK_BUFF_SIZE, SK_BUFF_DATA_END = 192, 80
"""``sizeof(struct __sk_buff)``, and where its member ``data_end`` is."""

LINEAR_SIZE_TYPES = ("sched_cls", "sched_act", "cgroup_skb")
"""Programs whose packet can be made in several parts."""

BPF_CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF")
"""What a program that is loaded without privilege is loaded without."""


class MissedExpectationError(AssertionError):
    """A program that did something else than its annotations say."""


@dataclass(frozen=True)
class Case:
    """One program of an object in one mode; ``btf_path`` is what it is relocated against."""

    path: Path
    content: bytes
    program: str
    mode: str
    annotations: Annotations
    auxiliary: Collection[str] = ()
    btf_path: str = ""

    @property
    def expectation(self) -> Expectation:
        """What the annotations expect in this mode."""
        one = getattr(self.annotations, self.mode)
        assert one is not None
        return one  # type: ignore[no-any-return]


def cases(path: Path, content: bytes, programs: Mapping[str, Annotations]) -> Iterator[Case]:
    """Yield the tests of an object: each program in each of its modes."""
    for name, notes in programs.items():
        if not notes.is_test:
            continue
        for mode in ("privileged", "unprivileged"):
            if getattr(notes, mode) is not None:
                also = [n for n, other in programs.items() if mode in other.auxiliary]
                yield Case(path, content, name, mode, notes, also, notes.btf_path)


def run(case: Case, before: Callable[[Mapping[str, Map]], object] | None = None) -> None:
    """Run one test; ``before`` gets the maps by name before the program is test-run.

    Raises `MissedExpectationError`, and `UnavailableError` for what this machine lacks.
    """
    conditions.check(case.annotations, privileged=case.mode == "privileged")
    if case.mode == "unprivileged":
        _without_privilege(case, before)
    else:
        _run(case, before)


def _run(case: Case, before: Callable[[Mapping[str, Map]], object] | None) -> None:
    notes, expected = case.annotations, case.expectation
    with load_alone(
        case.content,
        case.path.name.partition(".")[0],
        case.program,
        auxiliary=case.auxiliary,
        log_level=notes.log_level,
        flags=notes.flags & ~notes.cleared_flags,
        btf_path=case.btf_path,
        privileged=case.mode == "privileged",
    ) as answer:
        if lacking := _lacking(answer, privileged=case.mode == "privileged"):
            raise UnavailableError(f"cannot be loaded here: {lacking}")
        _hold(answer, expected)
        if case.mode == "unprivileged":
            capabilities.restore()
        if answer.code == 0 and expected.xlated:
            _hold_dump(answer, expected.xlated)
        if answer.code == 0 and expected.jited:
            _hold_text("the machine code", machine_text(answer.fd, case.program), expected.jited)
        if answer.code == 0 and not expected.failure and expected.retval is not None:
            if before is not None:
                before({name: Map.from_fd(os.dup(fd)) for name, fd in answer.maps.items()})
            _hold_retval(answer, expected.retval, notes, case.program)
            for number, patterns in (
                (streams.STDERR, expected.stderr),
                (streams.STDOUT, expected.stdout),
            ):
                if patterns:
                    what = "its stderr" if number == streams.STDERR else "its stdout"
                    _hold_text(what, streams.read(answer.fd, number), patterns)


def _without_privilege(case: Case, before: Callable[[Mapping[str, Map]], object] | None) -> None:
    """Run a test in a thread whose effective capabilities lack those for BPF."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            capabilities.drop(BPF_CAPABILITIES, keep=case.annotations.capabilities)
            _run(case, before)
        except BaseException as error:  # noqa: BLE001 (raised again in the caller's thread)
            raised.append(error)

    thread = threading.Thread(target=work, name="pytest-bpf-unprivileged")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _lacking(answer: Answer, *, privileged: bool) -> str | None:
    """Return what the kernel lacks for a program that it refused without verifying it."""
    if not answer.code or answer.log:
        return None
    missing = refusals.missing_name(answer.messages) or refusals.missing_target(answer.messages)
    if missing:
        return missing
    if privileged and answer.code in {errno.EPERM, errno.EACCES}:
        return privilege() or refusals.missing_feature(answer.section, answer.type)
    return None


def _hold(answer: Answer, expected: Expectation) -> None:
    """Hold the answer to the load against what is expected; raise `MissedExpectationError`."""
    try:
        _hold_load(answer, expected)
    except MissedExpectationError:
        if NOT_INJECTABLE.search(answer.log) and config(INJECTION) == "n":
            raise UnavailableError(
                f"cannot be loaded here: without {INJECTION} this kernel knows no function that is "
                "sleepable or whose return value may be changed"
            ) from None
        raise


def _hold_load(answer: Answer, expected: Expectation) -> None:
    if expected.failure and answer.code == 0:
        raise MissedExpectationError("it was loaded, and a failure is expected" + _end(answer.log))
    if not expected.failure and answer.code:
        why = libbpf.reason(answer.code)
        raise MissedExpectationError(
            f"it was refused ({why}), and success is expected{_end(answer.log, answer.messages)}"
        )
    missed = mismatch(answer.log, expected.messages)
    if missed:
        raise MissedExpectationError(f"the verifier's log: {missed}{_end(answer.log)}")


def _hold_dump(answer: Answer, patterns: Sequence[Pattern]) -> None:
    """Compare the instructions after the verifier, written as test_loader does."""
    text = "".join(f"{one.offset}: {_plain(one)}\n" for one in xlated(answer.fd, "it"))
    _hold_text("the instructions", text, patterns)


def _plain(instruction: Instruction) -> str:
    """Return an instruction without its code; a helper that the verifier put in has no name."""
    code, registers, _, value = struct.unpack_from("=BBhi", instruction.code)
    if code == CALL and not registers >> 4:
        names = {number: name for name, number in helper_ids().items()}
        return f"call {names[value]}" if value in names else "call unknown"
    return re.sub(r"#-?[0-9]+$", "", instruction.text[5:])


def _hold_text(what: str, text: str, patterns: Sequence[Pattern]) -> None:
    missed = mismatch(text, patterns)
    if missed:
        raise MissedExpectationError(f"{what}: {missed}{_end(text)}")


def _hold_retval(answer: Answer, expected: int, notes: Annotations, program: str) -> None:
    links = [libbpf.call("bpf_map__attach_struct_ops", made) for made in answer.struct_ops]
    try:
        value = within_limit(program, partial(_test_run, answer, notes.linear_size))
    finally:
        for link in links:
            libbpf.function("bpf_link__destroy")(link)
    if expected not in POINTER_VALUES and value != ctypes.c_int32(expected).value:
        raise MissedExpectationError(f"it returned {value}, not {expected}")


def _test_run(answer: Answer, linear_size: int | None) -> int:
    data, out = bytes(TEST_DATA_LEN), ctypes.create_string_buffer(TEST_DATA_LEN << 2)
    options = RunOptions()
    if linear_size is not None and answer.type not in LINEAR_SIZE_TYPES:
        raise AnnotationError(
            f"__linear_size is for {', '.join(LINEAR_SIZE_TYPES)}, and this is {answer.type}"
        )
    if linear_size:
        context = bytearray(SK_BUFF_SIZE)
        struct.pack_into("=I", context, SK_BUFF_DATA_END, linear_size)
        options.ctx_in, options.ctx_size_in = bytes(context), len(context)
    if answer.type != "syscall":
        options.data_in = data
        options.data_size_in = len(data)
        options.data_out = ctypes.cast(out, ctypes.c_void_p)
        options.data_size_out = len(out)
        options.repeat = 1
    try:
        libbpf.call("bpf_prog_test_run_opts", answer.fd, ctypes.byref(options))
    except OSError as error:
        why = libbpf.reason(error.errno or 0)
        raise MissedExpectationError(f"it cannot be test-run: {why}") from None
    return ctypes.c_int32(options.retval).value


def _end(log: str, messages: Collection[str] = ()) -> str:
    """Return the end of a log, and what libbpf says, for a failure's text."""
    lines = [*log.strip().splitlines()]
    left_out = len(lines) - LOG_LINES
    shown = [f"... ({left_out} lines)", *lines[-LOG_LINES:]] if left_out > 0 else lines
    if not lines:
        shown = list(messages)
    return "".join(f"\n  {line}" for line in shown)
