"""Tests that include ``bpf_test.h``: what their annotations say, and what they reported."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import near_matches
from pytest_bpf.plugin.collect.expectation import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from pytest_bpf.objects import Object

TAG = "bpf_test"
RESULTS = "bpf_test_results"
CHECK, EQUAL, LOG, SKIP, UNSIGNED = 1, 2, 3, 4, 0x100
"""``enum bpf_test_kind`` of ``bpf_test.h``."""

FRAMES = ("udp_frame", "tcp_frame", "icmp_frame", "arp_frame", "ndp_frame")
"""The functions of `pytest_bpf.traffic.packets` that a packet may be made by."""


@dataclass(frozen=True)
class CTest:
    """One test function: its packet, context, variables and what pytest needs to know.

    ``params`` are the variables of each run; none gives one run with those of the source.
    """

    name: str
    packet: str = ""
    context: Mapping[str, int | str] = field(default_factory=dict)
    params: tuple[str, ...] = ()
    setup: str = ""
    budgets: tuple[tuple[str, str], ...] = ()
    marks: tuple[str, ...] = ()

    @property
    def fixtures(self) -> tuple[str, ...]:
        """The fixtures that its annotations name."""
        kind, _, name = self.packet.partition(":")
        packet = name if kind == "fixture" else ""
        return tuple(filter(None, (packet, self.setup)))


@dataclass(frozen=True)
class Report:
    """One report of a test: a failed check, two values that differ, a text, a reason to skip."""

    kind: int
    file: str
    line: int
    left: int
    right: int
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        if self.kind == EQUAL:
            return f"{place}: {self.text}: {_shown(self.left)} != {_shown(self.right)}"
        if self.kind == LOG:
            return f"{place}: {self.text}: {_shown(self.left)}"
        return f"{place}: {self.text}{' is false' if self.kind == CHECK else ''}"


@dataclass(frozen=True)
class CheckResults:
    """What one run reported: how many checks it made, and its reports in order."""

    checks: int
    reports: tuple[Report, ...]
    left_out: int

    @property
    def failures(self) -> tuple[Report, ...]:
        """The checks that failed."""
        return tuple(report for report in self.reports if report.kind in {CHECK, EQUAL})

    @property
    def skip(self) -> Report | None:
        """Why the test skipped itself, None when it did not."""
        return next((report for report in self.reports if report.kind == SKIP), None)


def ctest(name: str, tags: Iterable[str]) -> CTest | None:
    """Return the test that these declaration tags make of a function; None when they make none.

    Raises `AnnotationError` for a tag that cannot be understood.
    """
    ours = [tag for tag in tags if tag == TAG or tag.startswith(f"{TAG}:")]
    if not ours:
        return None
    values: dict[str, list[str]] = {}
    for tag in ours:
        kind, given, text = tag.removeprefix(TAG).removeprefix(":").partition("=")
        if given and kind not in _ANNOTATIONS:
            raise AnnotationError(
                f"{name}: there is no annotation {kind!r}{near_matches(kind, _ANNOTATIONS)}"
            )
        if given:
            values.setdefault(kind, []).append(text.strip())
    if TAG not in ours:
        raise AnnotationError(f"{name}: has annotations of a test, and not __test")
    for kind in ("packet", "context", "setup"):
        if len(values.get(kind, ())) > 1:
            raise AnnotationError(f"{name}: has __test_{kind} {len(values[kind])} times")
    packet = next(iter(values.get("packet", ())), "")
    return CTest(
        name,
        packet=packet,
        context=assignments(name, next(iter(values.get("context", ())), "")),
        params=tuple(values.get("param", ())),
        setup=next(iter(values.get("setup", ())), ""),
        budgets=tuple(_budget(name, text) for text in values.get("budget", ())),
        marks=tuple(values.get("mark", ())),
    )


_ANNOTATIONS = ("packet", "context", "param", "setup", "budget", "mark")


def assignments(name: str, text: str) -> dict[str, int | str]:
    """Return ``"port=53, mode=FAST"`` as a dict of numbers and text; raises `AnnotationError`.

    What the text means, an enumerator or an address, is a matter of the variable's type.
    """
    pairs: dict[str, int | str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        variable, given, value = (word.strip() for word in part.partition("="))
        if not (given and value) or not variable.isidentifier():
            raise AnnotationError(f"{name}: {part!r} is no 'name=value'")
        try:
            pairs[variable] = int(value, 0)
        except ValueError:
            pairs[variable] = value
    return pairs


def packet_bytes(test: CTest, folder: Path, fixture: Callable[[str], Any]) -> bytes:
    """Return the packet of a test; ``fixture`` gives the value of a fixture.

    Raises `AnnotationError` when it cannot be made.
    """
    kind, _, rest = test.packet.partition(":")
    if not test.packet:
        return b""
    if kind == "fixture":
        return bytes(fixture(rest))
    if kind == "pcap":
        return _from_pcap(test, folder, rest)
    if "(" in test.packet:
        return _built(test)
    try:
        return bytes.fromhex(test.packet)
    except ValueError:
        raise AnnotationError(
            f"{test.name}: {test.packet!r} is no packet: it is hex digits, "
            f"{' or '.join(FRAMES)}(...), 'pcap:FILE#NUMBER' or 'fixture:NAME'"
        ) from None


def _built(test: CTest) -> bytes:
    from pytest_bpf.traffic import packets

    try:
        call = ast.parse(test.packet, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        assert call.func.id in FRAMES
        assert not call.args
        options = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        frame: bytes = getattr(packets, call.func.id)(**options)
    except (SyntaxError, ValueError, TypeError, AssertionError) as error:
        why = f" ({error})" if str(error) else ""
        raise AnnotationError(
            f"{test.name}: the packet {test.packet!r} cannot be built{why}: "
            f"it is one of {', '.join(FRAMES)} with name=value"
        ) from None
    return frame


def _from_pcap(test: CTest, folder: Path, rest: str) -> bytes:
    from pytest_bpf.traffic.capture import pcap

    name, _, number = rest.partition("#")
    try:
        frames = pcap.read(folder / name)
        return frames[int(number or 1) - 1]
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{test.name}: the packet {test.packet!r}: {error}") from None
    except IndexError:
        raise AnnotationError(
            f"{test.name}: {folder / name} has {len(frames)} packets, and no number {number}"
        ) from None


def results(obj: Object) -> CheckResults:
    """Return what the last run reported."""
    state = obj.globals[RESULTS]
    kept = min(int(state.reports), len(state.report))
    return CheckResults(
        int(state.checks),
        tuple(_report(state.report[at]) for at in range(kept)),
        int(state.reports) - kept,
    )


def _report(raw: Any) -> Report:
    kind, left, right = int(raw.kind), int(raw.left), int(raw.right)
    if kind & UNSIGNED:
        left, right = left % 2**64, right % 2**64
    return Report(kind & ~UNSIGNED, _text(raw.file), int(raw.line), left, right, _text(raw.text))


def _text(raw: Any) -> str:
    text = raw.encode() if isinstance(raw, str) else bytes(raw)
    return text.split(b"\0", 1)[0].decode(errors="replace")


def _budget(name: str, text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(\w+)\s*<=\s*(.+)", text)
    if match is None:
        raise AnnotationError(f"{name}: the budget {text!r} is no 'metric<=limit'")
    return match[1], match[2]


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10 else f"{value} ({value % 2**64:#x})"


def lines(outcome: CheckResults) -> Iterator[str]:
    """Yield what a failed test shows: every report, in the order of the run."""
    yield from map(str, outcome.reports)
    if outcome.left_out:
        yield f"... and {outcome.left_out} more reports"
