"""Looking at what a failed test has loaded, attached and made, while all of it is still there."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, NotMeasuredError, PlaceError, UnavailableError
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.kernel.layers.recognition import first_layer
from pytest_bpf.kinds.maps import EVENT_MAPS
from pytest_bpf.objects.elf import sections
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.targets import InterfaceTarget
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.programs.program import Program
from pytest_bpf.plugin.artifacts.code import code_of
from pytest_bpf.plugin.artifacts.evidence import (
    Code,
    Drop,
    Evidence,
    Hook,
    InterfaceState,
    ProgramState,
    TestRun,
)
from pytest_bpf.plugin.artifacts.looking import map_state, read, variables, variables_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_bpf.agents import Agent
    from pytest_bpf.drops import Drops
    from pytest_bpf.kernel.sys.printk import PrintedLine, PrintkTrace
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns import Namespace
    from pytest_bpf.objects import Object
    from pytest_bpf.plugin.artifacts.evidence import Failure, MapState
    from pytest_bpf.plugin.artifacts.looking import Unread
    from pytest_bpf.plugin.artifacts.observing import Told

MOST_PRINTED = 200
"""Lines of printk that are kept."""

WITHOUT_HOOK = {"ext", "syscall", "struct_ops", "unspec"}
"""Types of programs that run without a link of their own, or replace another."""


def collect(
    failure: Failure,
    loaders: Sequence[Loader],
    *,
    namespaces: Iterable[Namespace],
    drops: Drops | None,
    trace: PrintkTrace | None,
    since: float,
    notes: list[str],
    agents: Sequence[Agent] = (),
    told: Told | None = None,
) -> Evidence:
    """Return what there is to see now. What cannot be read is added to ``notes``.

    ``told`` is what was counted, where the test's path was recorded.
    """
    returned, refused = (told.returned, told.refused) if told else ({}, {})
    objects = [obj for loader in loaders for obj in loader.objects]
    others = [other for loader in loaders for other in loader.others]
    programs: list[ProgramState] = []
    maps: list[MapState] = []

    def unread(what: str, error: Exception) -> None:
        notes.append(f"{what} could not be read: {error}")

    for obj in objects:
        if obj.closed:
            notes.append(f"{obj.path.name} was closed before the end: its state is gone")
            continue
        links = [*obj.links.values(), *(o for o in others if isinstance(o, Link))]
        programs += [
            replace(
                _program(program, obj.path.name, links, unread),
                code=_code(obj, program),
                verdicts=_verdicts(returned.get(program.id, {})),
            )
            for program in obj.programs.values()
        ]
        maps += [
            replace(state, refused=_verdicts(refused.get(entry.id, {})))
            for entry in obj.maps.values()
            if (state := _map(entry, unread))
        ]
        maps += variables_state(variables(obj, unread))
    links = [o for o in others if isinstance(o, Link)]
    programs += [_program(o, "", links, unread) for o in others if isinstance(o, Program)]
    maps += [state for o in others if isinstance(o, Map) and (state := _map(o, unread))]
    for agent in agents:
        programs += [
            replace(
                _program(p, f"agent {agent.name}", agent.links.values(), unread), needs_hook=False
            )
            for p in agent.programs.values()
        ]
        own = (m for m in agent.maps.values() if m.type not in EVENT_MAPS)  # read by the agent
        maps += [state for entry in own if (state := _map(entry, unread))]
    interfaces, dropped = _places(namespaces, unread)
    return Evidence(
        failure=failure,
        programs=tuple(programs),
        maps=_without_shared_pins(maps),
        interfaces=interfaces,
        drops=_without_repeats([*_by_reason(drops, unread), *dropped]),
        printed=_printed(objects, trace, since, notes),
        cpus=os.cpu_count() or 1,
        notes=(*notes, *(told.notes if told else ())),
        traced=told is not None,
    )


def _verdicts(counts: Mapping[Any, int]) -> tuple[tuple[str, int], ...]:
    return tuple((getattr(value, "name", None) or str(value), n) for value, n in counts.items())


def _program(program: Program, source: str, links: Iterable[Link], unread: Unread) -> ProgramState:
    hooks = tuple(_hook(link) for link in links if link.program == program.name)
    runs: int | None = None
    misses = 0
    try:
        misses = program.recursion_misses
        with suppress(NotMeasuredError):
            runs = program.run_cnt
    except (BpfError, OSError) as error:
        unread(f"runs of program {program.name!r}", error)
    return ProgramState(
        program.name,
        program.type,
        source,
        hooks,
        program.type not in WITHOUT_HOOK,
        runs,
        misses,
        tuple(map(_test_run, program.last_runs)),
    )


def _test_run(record: tuple[Any, Any, Any]) -> TestRun:
    data, context, run = record
    verdict = getattr(run.retval, "name", None) or str(run.retval)
    shown = "" if context is None else f"{context!r:.200}"
    after = run.packet if run.data_out else None
    given = Packet(data)
    packet = Packet(data, first_layer(given.data) or "eth")
    lines = "" if run.recording is None else str(run.lines)
    return TestRun(packet, shown, verdict, after, lines)


def _hook(link: Link) -> Hook:
    place, target = link.place, link.target
    namespace = interface = ""
    if isinstance(place, InterfaceTarget):
        namespace = getattr(place.namespace, "name", "")
        interface = str(getattr(place, "name", place.ifindex))
        target = f"{interface} of {namespace}"
    elif isinstance(place, (int, str)) and not isinstance(place, bool):
        interface = str(place)
    return Hook(target, namespace, interface, _gone(link))


def _gone(link: Link) -> str:
    """Say why a link attaches nothing any more; empty while it does."""
    return link.severed or ("" if link.attached else "detached")


def _code(obj: Object, program: Program) -> Code:
    if not obj.content:
        return Code()
    try:
        return code_of(obj.content, program.name, program.section)
    except (ValueError, IndexError, KeyError):  # a damaged object that libbpf took
        return Code()


def _map(entry: Map, unread: Unread) -> MapState | None:
    try:
        return map_state(entry)
    except (BpfError, OSError) as error:
        unread(f"map {entry.name!r}", error)
        return None


def _without_shared_pins(maps: list[MapState]) -> tuple[MapState, ...]:
    """Return the maps, those once that two objects of this test share by a pin."""
    owned = {m.name for m in maps if not m.older_pin}
    return tuple(m for m in maps if not (m.older_pin and m.name in owned))


def _places(
    namespaces: Iterable[Namespace], unread: Unread
) -> tuple[tuple[InterfaceState, ...], list[Drop]]:
    """Return what passed and what was dropped; each counter that can be read is."""
    interfaces: list[InterfaceState] = []
    drops: list[Drop] = []
    for namespace in tuple(namespaces):
        name = namespace.name
        if namespace.closed:
            unread(f"namespace {name!r}", PlaceError(f"namespace {name!r} is closed"))
            continue
        interfaces += read(f"interfaces in {name!r}", _interfaces(namespace), unread)
        drops += read(f"drops of protocols in {name!r}", _protocols(namespace), unread)
        drops += read(f"drops of qdiscs in {name!r}", _qdiscs(namespace), unread)
    return tuple(interfaces), drops


def _interfaces(namespace: Namespace) -> Iterator[InterfaceState]:
    from pytest_bpf.drops.protocols import read_interfaces

    for name, flow in namespace.run(read_interfaces).items():
        yield InterfaceState(namespace.name, name, flow.rx, flow.tx, flow.xdp)


def _protocols(namespace: Namespace) -> Iterator[Drop]:
    from pytest_bpf.drops.protocols import REASONS, read_drops

    for counter, packets in namespace.run(read_drops).items():
        yield Drop(namespace.name, REASONS[counter], packets, counter)


def _qdiscs(namespace: Namespace) -> Iterator[Drop]:
    from pytest_bpf.drops.counters import read_qdisc_drops

    for (reason, interface, kind), packets in namespace.run(read_qdisc_drops).items():
        yield Drop(namespace.name, reason, packets, f"{kind} of {interface}")


def _without_repeats(drops: Sequence[Drop]) -> tuple[Drop, ...]:
    """Return drops, those of tc programs once: by the kernel's reason where `bpf_drops` has it."""
    from pytest_bpf.drops.counts import TC_REASONS

    named = any(drop.reason in TC_REASONS for drop in drops)
    return tuple(drop for drop in drops if not (named and drop.reason == "TC_ACT_SHOT"))


def _by_reason(drops: Drops | None, unread: Unread) -> Iterator[Drop]:
    if drops is None:
        return
    try:
        counts = drops.snapshot()
    except (BpfError, OSError) as error:
        unread("drops by reason", error)
        return
    if counts.unavailable:
        unread("drops by reason", UnavailableError(counts.unavailable))
    for (namespace, reason, function), packets in counts.packets.items():
        if packets:
            yield Drop(namespace, reason, packets, function)


def _printed(
    objects: Sequence[Object], trace: PrintkTrace | None, since: float, notes: list[str]
) -> tuple[str, ...]:
    """Return the last lines of what these programs printed."""
    if trace is None:
        return ()
    try:
        own = [line.text for line in printed_lines(objects, trace, since)]
    except (BpfError, OSError) as error:
        notes.append(f"bpf_printk could not be read: {error}")
        return ()
    if len(own) > MOST_PRINTED:
        notes.append(f"bpf_printk: the last {MOST_PRINTED} of {len(own)} lines are kept")
    return tuple(own[-MOST_PRINTED:])


def printed_lines(objects: Iterable[Object], trace: PrintkTrace, since: float) -> list[PrintedLine]:
    """Return what these programs printed, told apart from others by their formats."""
    from pytest_bpf.kernel.sys.printk import formats

    patterns = [
        pattern for obj in objects if obj.content for pattern in formats(sections(obj.content))
    ]
    return [line for line in trace.lines(since) if any(p.fullmatch(line.text) for p in patterns)]
