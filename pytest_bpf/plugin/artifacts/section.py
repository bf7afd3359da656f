"""The state of BPF as a section of a failed test's report: what is most telling comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.layers.text import headline
from pytest_bpf.kernel.values.actions import ACTIONS
from pytest_bpf.plugin.artifacts.hints import hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_bpf.kernel.layers.packet import Packet
    from pytest_bpf.plugin.artifacts.evidence import (
        Evidence,
        InterfaceState,
        MapState,
        ProgramState,
    )

TITLE = "State of BPF"

CHANGES, PRINTED, DROPS, INTERFACES, NOTES, IDLE = 6, 10, 8, 8, 8, 3
"""How many rows of each are shown; the last are programs that nothing ran."""


def lines(evidence: Evidence) -> list[str]:
    """Return the section: hints, programs, maps, drops, packets, what was printed, notes."""
    rows = [f"hint: {hint}" for hint in hints(evidence)]
    rows += _programs(evidence.programs)
    rows += _about_verdicts(evidence)
    rows += [row for state in evidence.maps for row in _map(state)]
    rows += _bounded(
        [
            f"dropped in {drop.namespace}: {drop.packets} by {drop.reason} ({drop.where})"
            for drop in evidence.drops
        ],
        DROPS,
    )
    rows += _bounded([_interface(i) for i in evidence.interfaces if i.rx or i.tx], INTERFACES)
    for passed in evidence.passed:
        rows.append(f"last packets of {passed.where}, of {passed.count}:")
        rows += [f"    {packet}" for packet in passed.packets]
    if evidence.printed:
        rows.append(f"bpf_printk, the last {min(PRINTED, len(evidence.printed))} lines:")
        rows += [f"    {text}" for text in evidence.printed[-PRINTED:]]
    notes = list(dict.fromkeys(f"note: {note}" for note in evidence.notes))
    return rows + _bounded(notes, NOTES)


def _programs(states: Sequence[ProgramState]) -> list[str]:
    """Return the programs; of many that nothing ran, beside others, only how many there are."""
    idle = [state for state in states if not (state.hooks or state.runs or state.test_runs)]
    if len(idle) <= IDLE or len(idle) == len(states):
        return [row for state in states for row in _program(state)]
    busy = [state for state in states if state not in idle]
    rows = [row for state in busy for row in _program(state)]
    return [*rows, f"{len(idle)} other programs: not attached, and not run"]


def _about_verdicts(evidence: Evidence) -> Iterator[str]:
    """Say how to learn what attached programs returned, where no counter of a driver tells it."""
    told = any(interface.xdp for interface in evidence.interfaces)
    silent = [
        state.name
        for state in evidence.programs
        if state.hooks
        and state.runs
        and not state.verdicts
        and state.type in ACTIONS
        and not (state.type == "xdp" and told)
    ]
    if silent and not evidence.traced:
        names = ", ".join(silent[:IDLE]) + (", ..." if len(silent) > IDLE else "")
        yield f"verdicts of {names}: not counted; --bpf-rerun-traced counts them"


def _program(state: ProgramState) -> Iterator[str]:
    where = ", ".join(
        hook.target + (f" ({hook.gone})" if hook.gone else "") for hook in state.hooks
    )
    parts = [f"attached to {where}" if where else "not attached"]
    if not state.needs_hook and not where:
        parts = []
    parts.append("runs not counted (statistics were off)" if state.runs is None else _runs(state))
    if state.verdicts:
        parts.append(_counts(state.verdicts))
    if state.misses:
        parts.append(f"{state.misses} runs missed by recursion")
    source = f", {state.source}" if state.source else ""
    yield f"program {state.name} ({state.type}{source}): {', '.join(parts)}"
    for run in state.test_runs[-2:]:
        context = f", context {run.context}" if run.context else ""
        yield f"    test_run: {_packet(run.packet)}{context} -> {run.verdict}"
        if run.after is not None and run.after != run.packet:
            changes = run.after.differences(run.packet)
            yield f"        changed: {'; '.join(_bounded(changes, CHANGES))}"
    if state.test_runs and state.test_runs[-1].lines:
        yield "    the lines of the last test_run:"
        yield from (f"    {line}" for line in state.test_runs[-1].lines.splitlines())


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)


def _runs(state: ProgramState) -> str:
    return f"ran {state.runs} time{'' if state.runs == 1 else 's'}"


def _packet(packet: Packet) -> str:
    """Return a packet in one line; its bytes where it is nothing that has addresses."""
    if not any(packet.data):
        return f"{len(packet)} bytes, all 0" if packet.data else "no packet"
    return headline(packet)


def _map(state: MapState) -> Iterator[str]:
    if state.events is not None:
        events = state.events
        if not (events.read or events.pending or events.lost is None or events.lost):
            return
        read = "no reader" if events.read is None else f"{events.read} read"
        lost = "lost not counted" if events.lost is None else f"{events.lost} lost"
        yield f"map {state.name} ({state.type}): {read}, {events.pending} pending, {lost}"
        return
    if state.unread:
        yield f"map {state.name} ({state.type}): {state.unread}"
        return
    if state.refused:
        yield f"map {state.name} ({state.type}): updates failed: {_counts(state.refused)}"
    if not state.changed:
        return
    room = "" if state.entries is None else f", {state.entries} of {state.max_entries} elements"
    full = ", full" if state.full else ""
    name = state.name if state.type == "globals" else f"map {state.name} ({state.type}{room}{full})"
    yield f"{name}: {state.changed} changed since the load"
    for change in state.changes[:CHANGES]:
        yield f"    {change.where}: {change.before or '(new)'} -> {change.now}"
    if state.changed > CHANGES:
        yield f"    ... and {state.changed - CHANGES} more"


def _interface(state: InterfaceState) -> str:
    xdp = "".join(
        f", {name.replace('_', ' ')} {packets}" for name, packets in sorted(state.xdp.items())
    )
    return f"{state.name} of {state.namespace}: {state.rx} packets in, {state.tx} out{xdp}"


def _bounded(rows: list[str], most: int) -> list[str]:
    return rows[:most] + ([f"... and {len(rows) - most} more"] if len(rows) > most else [])
