"""Hints at the cause of a failure: a table of rules, each a pure function of the evidence.

A rule yields sentences, or nothing; the first rules are the surest. Add one to `RULES`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.plugin.artifacts.evidence import Evidence, Hook, ProgramState

MOST = 5
"""Hints that are given."""

NAMES = 4
"""Programs that one hint names."""

LOOKUPS = ("bpf_map_lookup_elem", "bpf_map_lookup_percpu_elem")


def hints(evidence: Evidence) -> list[str]:
    """Return the first hints of the rules, each once."""
    sentences = [sentence for rule in RULES for sentence in rule(evidence)]
    return list(dict.fromkeys(sentences))[:MOST]


def over_budget(evidence: Evidence) -> Iterator[str]:
    """Of a program that costs too much: where it looks elements up."""
    for metric, subject in evidence.failure.over_budget:
        program = next((p for p in evidence.programs if p.name == subject), None)
        calls = [call for call in program.code.calls if call.helper in LOOKUPS] if program else []
        if calls:
            places = ", ".join(call.place or "?" for call in calls)
            times = "once" if len(calls) == 1 else f"{len(calls)} times"
            yield f"{subject} costs more {metric}: it calls bpf_map_lookup_elem {times}: {places}"


def gone_links(evidence: Evidence) -> Iterator[str]:
    """Of programs that were attached and are not any more."""
    for program in evidence.programs:
        if program.hooks and all(hook.gone for hook in program.hooks):
            hook = program.hooks[-1]
            yield f"program {program.name!r} is not attached to {hook.target} any more: {hook.gone}"


def never_attached(evidence: Evidence) -> Iterator[str]:
    """Of programs that nothing could run."""
    called = any(state.type == "prog_array" and state.slots for state in evidence.maps)
    idle = [
        program.name
        for program in evidence.programs
        if program.needs_hook and not (program.runs or program.hooks or program.test_runs)
    ]
    if not idle or called:
        return
    names = ", ".join(map(repr, idle[:NAMES])) + (", ..." if len(idle) > NAMES else "")
    noun, verb = ("program", "was") if len(idle) == 1 else ("programs", "were")
    yield (
        f"{noun} {names} {verb} never attached, nor run by test_run: "
        "obj.attach() or program.attach(...) does it"
    )


def wrong_namespace(evidence: Evidence) -> Iterator[str]:
    """Of programs that are attached where no packet came."""
    for program in evidence.programs:
        hook = _interface_hook(program)
        if hook is None:
            continue
        here = [
            i
            for i in evidence.interfaces
            if (i.namespace, i.name) == (hook.namespace, hook.interface)
        ]
        busy = [
            i
            for i in evidence.interfaces
            if i.rx and i.name != "lo" and (i.namespace, i.name) != (hook.namespace, hook.interface)
        ]
        if not hook.namespace and evidence.interfaces:
            yield (
                f"program {program.name!r} is attached in another namespace: to {hook.target} of "
                "the namespace that pytest runs in; attach to an interface of the test's places"
            )
        elif program.runs == 0 and busy and here and not here[0].rx:
            others = ", ".join(f"{i.name} of {i.namespace} ({i.rx})" for i in busy[:3])
            yield (
                f"program {program.name!r} is attached in another namespace than where packets "
                f"came in: {hook.target} received 0, but {others}"
            )


def dropped_before(evidence: Evidence) -> Iterator[str]:
    """Of packets that the kernel dropped; of programs that therefore saw none."""
    idle = [p.name for p in evidence.programs if p.hooks and p.runs == 0]
    for drop in evidence.drops:
        if drop.reason in {"NOT_SPECIFIED", "IP_INADDRERRORS"}:
            continue
        subject = f"no packet reached {idle[0]!r}: " if idle else ""
        why = EXPLANATIONS.get(drop.reason, "")
        noun = "packet" if drop.packets == 1 else "packets"
        yield (
            f"{subject}{drop.packets} {noun} dropped in {drop.namespace!r} by {drop.reason}"
            f"{f': {why}' if why else ''}"
        )


EXPLANATIONS = {
    "UDP_CSUM": "the UDP checksum is wrong; a program that rewrites a packet updates it",
    "TCP_CSUM": "the TCP checksum is wrong; a program that rewrites a packet updates it",
    "IP_CSUM": "the IP header's checksum is wrong; a program that rewrites a header updates it",
    "IP_INHDR": "the IP header is wrong: its checksum, length or TTL",
    "ICMP_CSUM": "the ICMP checksum is wrong",
    "XDP_TX": "the veth's other end needs a native program, such as one that returns XDP_PASS",
    "XDP_REDIRECT": "there is no such interface or entry, or the frame is too large",
    "XDP_DEVMAP": "the target takes no frames: those of places with xdp=True do",
    "XDP_CPUMAP": "the queue of the CPU is full, or a program of the cpumap dropped them",
    "TC_ACT_SHOT": "a tc program or filter dropped them",
    "QDISC_DROP": "the queue discipline dropped them, as it was told or as it was full",
    "NO_SOCKET": "nobody listens on that port",
    "SOCKET_RCVBUFF": "the receiver's buffer is full",
    "IP_OUTNOROUTES": "there is no route",
    "IP_RPFILTER": "the source address is none that the interface expects",
}
"""What drop reasons mean, in plain words."""


def lost_events(evidence: Evidence) -> Iterator[str]:
    """Of buffers that had no room."""
    for state in evidence.maps:
        events = state.events
        if events is None:
            continue
        room = f"{state.name!r} ({state.max_entries} bytes)" if state.max_entries else state.name
        if events.lost:
            yield f"{events.lost} events of {room} were lost: it was full; read sooner, or enlarge"
        elif events.lost is None:
            yield (
                f"events of {room} were lost, or may have been: it was full, with "
                f"{events.pending} pending; read sooner, or enlarge it"
            )


def full_maps(evidence: Evidence) -> Iterator[str]:
    """Of maps that take no further key."""
    for state in evidence.maps:
        if state.full:
            failed = dict(state.refused).get("E2BIG", 0)
            times = "once" if failed == 1 else f"{failed} times"
            yield (
                f"map {state.name!r} ({state.type}) is full, {state.entries} of "
                f"{state.max_entries} elements: updates of further keys fail with E2BIG"
                + (f", {times} in this test" if failed else "")
            )


def stale_pins(evidence: Evidence) -> Iterator[str]:
    """Of maps that were there before the load."""
    for state in evidence.maps:
        if state.older_pin:
            yield (
                f"map {state.name!r} is not new: the load took it from the pin {state.older_pin}, "
                f"with what was in it"
                + (f" ({_elements(state.entries)} now)" if state.entries is not None else "")
            )


def tail_calls(evidence: Evidence) -> Iterator[str]:
    """Of tail calls to an index that is empty."""
    arrays = {state.name: state for state in evidence.maps if state.type == "prog_array"}
    for program in evidence.programs:
        for call in program.code.tail_calls:
            array = arrays.get(call.map) or (
                next(iter(arrays.values())) if len(arrays) == 1 else None
            )
            if array is None:
                continue
            filled = ", ".join(map(str, array.slots)) or "none"
            at = f" ({call.place})" if call.place else ""
            if call.index is not None and call.index not in array.slots:
                yield (
                    f"program {program.name!r} tail-calls index {call.index} of {array.name!r}{at},"
                    f" which is empty: filled are {filled} of {array.max_entries}"
                )
            elif call.index is None and len(array.slots) < array.max_entries:
                yield (
                    f"program {program.name!r} tail-calls {array.name!r}{at} by an index that it "
                    f"computes; filled are {filled} of {array.max_entries}, others fall through"
                )


ABOUT_PORTS = re.compile(r"port|dest|source", re.IGNORECASE)
"""What a line of C that compares ports has in it."""


def byte_order(evidence: Evidence) -> Iterator[str]:
    """Of ports that are in the other byte order than the test, or the packet, has them."""
    wanted = {n for n in _numbers(evidence.failure.text) if 255 < n < 65536}
    there = {n for state in evidence.maps for change in state.changes for n in change.numbers}
    for state in evidence.maps:
        for change in state.changes:
            for number in change.numbers:
                if _swapped(number) in wanted - there:
                    yield (
                        f"{state.name}{change.where} has {number}, which is {_swapped(number)} in "
                        "the other byte order: a port of a packet is read by bpf_ntohs()"
                    )
    for program in evidence.programs:
        if program.code.swaps_bytes:
            continue
        sent = {port for run in program.test_runs for port in _ports(run.packet)}
        for bound in program.code.bounds:
            used = sent | wanted if ABOUT_PORTS.search(bound.text) else sent
            if bound.value in used and bound.value != _swapped(bound.value) and bound.value > 255:
                yield (
                    f"program {program.name!r} compares with {bound.value} as the host has it "
                    f"({bound.place}: {bound.text}), but a packet has ports in network byte order: "
                    f"bpf_htons({bound.value})"
                )


def per_cpu(evidence: Evidence) -> Iterator[str]:
    """Of per-CPU values that one CPU alone has, where the failure is about a 0 or all of them."""
    text = evidence.failure.text
    if "PerCPU" not in text and 0 not in _numbers(text):
        return
    for state in evidence.maps:
        cpus = {cpu for change in state.changes for cpu in change.cpus}
        if state.per_cpu and len(cpus) == 1 and evidence.cpus > 1:
            cpu = cpus.pop()
            yield (
                f"it ran on CPU {cpu} only: the values of per-CPU map {state.name!r} are 0 on the "
                "other CPUs; .sum() adds those of all"
            )


def bounds(evidence: Evidence) -> Iterator[str]:
    """Of a test run just at a bound that the program checks."""
    for program in evidence.programs:
        for run in program.test_runs[-2:]:
            length = len(run.packet)
            for bound in program.code.bounds:
                if length > 13 and abs(bound.value - length) <= 1:
                    yield (
                        f"the packet's {length} bytes are just at a bound of {program.name!r} "
                        f"({bound.place}: {bound.text}), which gave {run.verdict}: off by one?"
                    )


def wrong_packets(evidence: Evidence) -> Iterator[str]:
    """Of packets that were right before a program had them, and wrong after."""
    for program in evidence.programs:
        for run in program.test_runs[-1:]:
            if run.after is not None and not run.packet.faults and run.after.faults:
                yield f"program {program.name!r} spoils the packet: {run.after.faults[0]}"


def verdicts(evidence: Evidence) -> Iterator[str]:
    """Of a verdict that the failed comparison names, and what was wanted in its place."""
    text = evidence.failure.text
    for program in evidence.programs:
        for run in program.test_runs[-1:]:
            names = set(re.findall(r"\b(?:XDP|TC_ACT|SK)_[A-Z_]+\b", text)) - {run.verdict}
            if run.verdict in text and names:
                yield (
                    f"program {program.name!r} gave {run.verdict}, not {', '.join(sorted(names))}"
                )


def not_counted(evidence: Evidence) -> Iterator[str]:
    """Of programs whose runs nobody counted."""
    if "statistics" in evidence.failure.text or "not counted" in evidence.failure.text:
        names = [p.name for p in evidence.programs if p.runs is None]
        if names:
            yield f"statistics were off: the runs of {', '.join(names)} were not counted"


RULES: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    over_budget,
    gone_links,
    wrong_namespace,
    lost_events,
    stale_pins,
    full_maps,
    tail_calls,
    byte_order,
    dropped_before,
    never_attached,
    wrong_packets,
    per_cpu,
    bounds,
    verdicts,
    not_counted,
)
"""The rules, the surest first."""


def _ports(packet: Packet) -> tuple[int, ...]:
    layer = next((packet.layer(name) for name in ("udp", "tcp") if name in packet), None)
    return (layer.sport, layer.dport) if layer else ()


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{count} elements"


def _interface_hook(program: ProgramState) -> Hook | None:
    hooks = [hook for hook in program.hooks if hook.interface and not hook.gone]
    return hooks[0] if len(hooks) == 1 else None


def _numbers(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"(?<![\w.])\d{1,10}(?![\w.])", text)}


def _swapped(number: int) -> int:
    """Return a 16-bit number in the other byte order; others as they are.

    >>> _swapped(8080)
    36895
    """
    return (number & 0xFF) << 8 | number >> 8 if 0 <= number < 65536 else number
