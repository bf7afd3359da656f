"""Rules about maps: how often they are looked up, how they are written, what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.kernel.programs.flow import ADD, ALU, ALU64, LDX, STX
from pytest_bpf.kinds.maps import PER_CPU
from pytest_bpf.lint import helpers
from pytest_bpf.lint.values import ANYWHERE, ATOMIC, SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_bpf.lint.findings import LintFinding
    from pytest_bpf.lint.subject import Analysis, LintSubject
    from pytest_bpf.lint.values import RegisterState, Value

SHARED = frozenset({"array", "hash", "lru_hash"})
"""Kinds of maps whose values all CPUs share."""


def repeated_lookup(subject: LintSubject) -> Iterator[LintFinding]:
    """One key is looked up in one map twice."""
    yield from _lookups_of_one_key(subject, "repeated-lookup", same_map=True)


def split_value(subject: LintSubject) -> Iterator[LintFinding]:
    """One key is looked up in two maps."""
    yield from _lookups_of_one_key(subject, "split-value", same_map=False)


def _lookups_of_one_key(
    subject: LintSubject, rule: str, *, same_map: bool
) -> Iterator[LintFinding]:
    for analysis in subject.analyses:
        earlier: dict[int, tuple[str, object]] = {}
        for at, helper, state in analysis.helper_calls():
            name, key = _lookup(subject, state)
            if helper == helpers.MAP_UPDATE or key is None:
                continue
            if helper != helpers.MAP_LOOKUP or subject.kind(name) not in helpers.KEYED:
                continue
            twins = [
                (before, other)
                for before, (other, its_key) in earlier.items()
                if before in state.called and its_key == key and (other == name) == same_map
            ]
            if same_map:
                twins = [twin for twin in twins if not _written_between(analysis, twin[0], at)]
            if twins:
                before, other = twins[0]
                _, line = analysis.function.place(before)
                where = f"in line {line}" if line else "before"
                message = (
                    f"the key was looked up in {name!r} {where}; keep that pointer"
                    if same_map
                    else f"the key was looked up in {other!r} {where}; put both values into one "
                    "struct, and look it up once"
                )
                yield subject.finding(rule, analysis, at, message)
            earlier[at] = (name, key)


def _lookup(subject: LintSubject, state: RegisterState) -> tuple[str, object | None]:
    target, pointer = state.registers[1], state.registers[2]
    if target.kind != "map":
        return "", None
    spec = subject.maps.get(target.name)
    key = state.content(pointer, spec.key_size) if spec else None
    constant = isinstance(key, tuple) and all(
        isinstance(part, tuple) and part[2].kind == "constant" for part in key
    )
    return target.name, None if constant and subject.kind(target.name) in helpers.INDEXED else key


def _written_between(analysis: Analysis, start: int, end: int) -> bool:
    """Say whether an update or a deletion may run between two look-ups: then both are needed."""
    between = analysis.function.reached(start)
    return any(
        at in between and end in analysis.function.reached(at)
        for at, helper, _ in analysis.helper_calls()
        if helper in {helpers.MAP_UPDATE, helpers.MAP_DELETE}
    )


def shared_atomic(subject: LintSubject) -> Iterator[LintFinding]:
    """All CPUs add to one number atomically."""
    for analysis, at, base in _atomics(subject):
        state = analysis.states[at]
        always = state is not None and not state.passed and analysis.function.entry
        if base.kind == "global" and base.name.startswith((".bss", ".data")) and always:
            what = f"a variable in {base.name} in every run"
        elif base.kind == "element" and subject.kind(base.name) == "array":
            what = f"an element of the array {base.name!r}"
        else:
            continue
        message = (
            f"all CPUs add to {what}: a per-CPU array needs no atomic, and no cache line moves"
        )
        yield subject.finding("shared-atomic", analysis, at, message)


def per_cpu_atomic(subject: LintSubject) -> Iterator[LintFinding]:
    """A per-CPU value is changed by an atomic."""
    for analysis, at, base in _atomics(subject):
        if base.kind == "element" and subject.kind(base.name) in PER_CPU:
            message = f"the values of {base.name!r} are per CPU: add to them without an atomic"
            yield subject.finding("per-cpu-atomic", analysis, at, message)


def _atomics(subject: LintSubject) -> Iterator[tuple[Analysis, int, Value]]:
    for analysis in subject.analyses:
        for at, insn in enumerate(analysis.function.instructions):
            state = analysis.states[at]
            is_atomic = insn.code & 7 == STX and insn.code & 0xE0 == ATOMIC
            if state and is_atomic and insn.value & 0xF0 == ADD:
                yield analysis, at, state.registers[insn.to]


def racy_update(subject: LintSubject) -> Iterator[LintFinding]:
    """A shared number is read, changed and written back, without an atomic."""
    for analysis in subject.analyses:
        for at, insn in enumerate(analysis.function.instructions):
            state = analysis.states[at]
            plain = insn.code & 7 == STX and insn.code & 0xE0 == 0x60
            if state is None or not plain:
                continue
            base, value = state.registers[insn.to], state.registers[insn.of]
            name = _shared(subject, analysis, base)
            if not name or value.at < 0 or base.offset == ANYWHERE:
                continue
            made = analysis.function.instructions[value.at]
            if made.code & 7 not in {ALU, ALU64} or made.code & 0xF0 not in {ADD, 0x10}:
                continue
            if _reads_it(analysis, value, base, base.offset + insn.offset, SIZES[insn.code & 0x18]):
                message = (
                    f"two CPUs that change {name} at once lose one change; use "
                    "__sync_fetch_and_add, or a per-CPU map"
                )
                yield subject.finding("racy-update", analysis, at, message)


def _shared(subject: LintSubject, analysis: Analysis, base: Value) -> str:
    """Return what an address means that all CPUs share; "" for others, and a task's own values."""
    if base.kind == "global" and base.name.startswith((".bss", ".data")):
        return f"a variable in {base.name}"
    if base.kind != "element" or subject.kind(base.name) not in SHARED:
        return ""
    state = analysis.states[base.at]
    spec = subject.maps[base.name]
    key = state.content(state.registers[2], spec.key_size) if state else None
    if subject.kind(base.name) != "array" and (key is None or _is_of_task(analysis, key)):
        return ""
    return f"a value of {base.name!r}"


def _is_of_task(analysis: Analysis, key: tuple[object, ...]) -> bool:
    origins = {at for part in key if isinstance(part, tuple) for at in part[2].origin}
    ids = {helpers.PID_TGID, 35}
    return any(analysis.function.instructions[at].value in ids for at in origins)


def _reads_it(analysis: Analysis, value: Value, base: Value, offset: int, size: int) -> bool:
    for at in value.origin:
        insn, state = analysis.function.instructions[at], analysis.states[at]
        if state is None or insn.code & 7 != LDX or SIZES[insn.code & 0x18] != size:
            continue
        source = state.registers[insn.of]
        same = (source.kind, source.name, source.at) == (base.kind, base.name, base.at)
        if same and source.offset + insn.offset == offset:
            return True
    return False


def dense_keys(subject: LintSubject) -> Iterator[LintFinding]:
    """All keys of a hash are small constants."""
    keys: dict[str, list[tuple[Analysis, int, bool]]] = {}
    for analysis, at, helper, state in subject.calls():
        target = state.registers[1]
        if helper not in {helpers.MAP_LOOKUP, helpers.MAP_UPDATE} or target.kind != "map":
            continue
        spec = subject.maps.get(target.name)
        if spec is None or spec.type not in {"hash", "percpu_hash"} or spec.key_size != 4:
            continue
        key = state.content(state.registers[2], 4)
        parts = [part[2] for part in key or () if isinstance(part, tuple)]
        small = bool(parts) and all(v.kind == "constant" and 0 <= v.offset < 4096 for v in parts)
        keys.setdefault(target.name, []).append((analysis, at, small))
    for name, uses in keys.items():
        if all(small for _, _, small in uses):
            kind = subject.kind(name).replace("hash", "array")
            message = (
                f"every key of the {subject.kind(name)} {name!r} is a small constant: use {kind}"
            )
            yield subject.finding("dense-keys", uses[0][0], uses[0][1], message)


def never_deleted(subject: LintSubject) -> Iterator[LintFinding]:
    """A hash is filled by programs, and none of them deletes."""
    used: dict[str, set[int]] = {}
    places: dict[str, tuple[Analysis, int]] = {}
    for analysis, at, helper, state in subject.calls():
        target = state.registers[1]
        if target.kind == "map":
            used.setdefault(target.name, set()).add(helper)
            if helper == helpers.MAP_UPDATE:
                places.setdefault(target.name, (analysis, at))
    for name, calls in used.items():
        full = helpers.MAP_UPDATE in calls and helpers.MAP_DELETE not in calls
        if full and subject.kind(name) in {"hash", "percpu_hash"}:
            message = (
                f"no program deletes from {name!r}: after {subject.maps[name].max_entries:,} keys "
                "updates fail, unless user space deletes; an lru_hash drops old keys"
            )
            yield subject.finding("never-deleted", *places[name], message)


def large_map(subject: LintSubject) -> Iterator[LintFinding]:
    """A map takes more memory than the limit."""
    limit = subject.settings.memory
    for name, spec in subject.maps.items():
        size = subject.memory(name)
        if size > limit:
            uses = (
                (analysis, at)
                for analysis, at, _, state in subject.calls()
                if name in {value.name for value in state.registers[1:6] if value.kind == "map"}
            )
            place = next(uses, None)
            if place:
                message = (
                    f"{name!r} ({spec.type}, {spec.max_entries:,} entries) takes "
                    f"{size / 2**20:,.0f} MiB, more than {limit >> 20:,} MiB"
                )
                yield subject.finding("large-map", *place, message)
