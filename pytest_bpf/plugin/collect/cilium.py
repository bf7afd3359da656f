"""Tests in Cilium's form: ``PKTGEN``, ``SETUP`` and ``CHECK`` programs of one name.

Each runs by ``BPF_PROG_RUN`` and hands its packet and context on; in front of the packet that CHECK
gets stands what SETUP returned. CHECK returns the verdict, and leaves its log in the map
``suite_result_map`` as a protobuf message. The form is that of ``bpf/tests/common.h`` and
``test/bpf_tests/trf.proto`` in Cilium's repository.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError
from pytest_bpf.kinds.programs import SECTIONS
from pytest_bpf.plugin.collect.patience import within_limit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.objects import Object, Program

SECTION = re.compile(r"(?P<type>[^/]+)/test/(?P<name>[^/]+)/(?P<step>pktgen|setup|jump|check)")
SET_UP = ("setup", "jump")
"""Two names of one step; what it returns is put before the packet."""

RESULTS = "suite_result_map"
METADATA = "mock_skb_meta_map"
"""A map that stands in for a packet's metadata; it is cleared after each test as `RESULTS` is."""

PACKET_SIZE = 4096 - 256 - 320
"""Bytes of the packet that the first program gets: the largest that XDP takes."""

NO_PACKET = f"its packet is {PACKET_SIZE} bytes of 0"

STATUSES = ("ERROR", "PASS", "FAIL", "SKIP")
"""By number, as programs return them."""


class CiliumTestError(BpfError):
    """A test in Cilium's form that is incomplete, or whose results cannot be read."""


@dataclass(frozen=True)
class SubTest:
    """One ``TEST`` of a CHECK program: its name, its status, and its log."""

    name: str
    status: str
    log: tuple[str, ...]


@dataclass(frozen=True)
class CiliumResults:
    """What a CHECK program left: its status, its tests, and its own log."""

    status: str
    tests: tuple[SubTest, ...]
    log: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Yield what a failed test shows."""
        yield from self.log
        for test in self.tests:
            if test.status != "PASS" or test.log:
                yield f"{test.name}: {test.status}"
                yield from (f"  {line}" for line in test.log)


def kind(section: str) -> str | None:
    """Return the kind of program that a section's first word says; None when it says none.

    >>> kind("xdp/test/drops/check"), kind("xdp_policies"), kind("policies")
    ('xdp', 'xdp', None)
    """
    word = re.split(r"[^a-z]", section, maxsplit=1)[0]
    return word if word in SECTIONS else None


def names(sections: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the steps that sections have for each test, the tests in alphabetical order."""
    steps: dict[str, set[str]] = {}
    for section in sections:
        if match := SECTION.fullmatch(section):
            steps.setdefault(match["name"], set()).add(match["step"])
    return {name: frozenset(steps[name]) for name in sorted(steps)}


def run(obj: Object, name: str) -> CiliumResults:
    """Run the programs of one test and return its results.

    Raises `CiliumTestError` when the test is incomplete or left no results, and `RunError`.
    """
    programs = {
        match["step"]: program
        for program in obj.programs.values()
        if (match := SECTION.fullmatch(program.section)) and match["name"] == name
    }
    if "check" not in programs:
        raise CiliumTestError(f"{name} has {' and '.join(sorted(programs))}, and no CHECK")
    if RESULTS not in obj.maps:
        raise CiliumTestError(f"{name}: there is no map {RESULTS!r}; include Cilium's common.h")
    if (kind := obj.maps[RESULTS].type) != "array":
        raise CiliumTestError(
            f"{name}: the map {RESULTS!r} is of type {kind}, and must be an array; include "
            "Cilium's common.h"
        )
    _clear(obj)
    try:
        status = _chain(name, programs)
        return read(status, bytes(obj.maps[RESULTS][0]))
    finally:
        _clear(obj)


def _chain(name: str, programs: dict[str, Program]) -> int:
    packet = bytes(PACKET_SIZE)
    context: Any = {} if programs["check"].type == "sched_cls" else None
    returned = 0
    for step in ("pktgen", *SET_UP, "check"):
        if step not in programs:
            continue
        run = partial(programs[step].test_run, packet, context)
        result = within_limit(f"{step.upper()} of {name}", run)
        returned, packet = int(result.retval) & 0xFFFFFFFF, result.data_out
        context = result.context
        if step in SET_UP:
            packet = struct.pack("=I", returned) + packet
    return returned


def _clear(obj: Object) -> None:
    for name in (RESULTS, METADATA):
        if name in obj.maps:
            obj.maps[name][0] = bytes(obj.maps[name].value_size)


def read(status: int, message: bytes) -> CiliumResults:
    """Return the results of a status and a message; raises `CiliumTestError` for a damaged one."""
    if status >= len(STATUSES):
        raise CiliumTestError(f"CHECK returned {status}, which is no status: it is 0 to 3")
    tests, log = [], []
    for field, value in _fields(message):
        if field == 1:
            tests.append(_sub_test(_bytes(value)))
        elif field == 2:
            log.append(_log(_bytes(value)))
    return CiliumResults(STATUSES[status], tuple(tests), tuple(log))


def _sub_test(message: bytes) -> SubTest:
    name, status, log = "", 0, []
    for field, value in _fields(message):
        if field == 1:
            name = _text(_bytes(value))
        elif field == 2 and isinstance(value, int):
            status = value
        elif field == 3:
            log.append(_log(_bytes(value)))
    if status >= len(STATUSES):
        raise CiliumTestError(f"{name}: {status} is no status: it is 0 to 3")
    return SubTest(name, STATUSES[status], tuple(log))


def _log(message: bytes) -> str:
    text, values = "", []
    for field, value in _fields(message):
        if field == 1:
            text = _text(_bytes(value))
        elif field == 2 and isinstance(value, int):
            values.append(value)
    return _printed(text, values)


def _printed(text: str, values: list[int]) -> str:
    """Put the values into a format as bpf_trace_printk() takes it."""
    left = iter(values)

    def one(match: re.Match[str]) -> str:
        value = next(left, None)
        if value is None:
            return f"{match[0]} (no value)"
        bits = {0: 32, 1: 64, 2: 64}[len(match["long"])]
        value %= 1 << bits
        if match["as"] in "di" and value >> (bits - 1):
            value -= 1 << bits
        return f"{value:x}" if match["as"] in "xp" else str(value)

    return re.sub(r"%(?P<long>l{0,2})(?P<as>[diuxps])", one, text)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message, up to the zeros at its end."""
    at = 0
    while at < len(message) and message[at]:
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield field, value
        elif wire == 1:
            yield field, int.from_bytes(message[at : at + 8], sys.byteorder)
            at += 8
        elif wire == 2:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise CiliumTestError(f"the results are damaged: a field of {size} bytes at {at}")
            yield field, message[at : at + size]
            at += size
        else:
            raise CiliumTestError(f"the results are damaged: wire type {wire} at byte {at}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise CiliumTestError(f"the results are damaged: a number without an end at byte {at}")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise CiliumTestError(f"the results are damaged: the number {value} stands for a text")
    return value


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")
