"""What was seen of BPF at the end of a failed test: values alone, to decide and to print from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_bpf.kernel.layers.packet import Packet


@dataclass(frozen=True)
class Hook:
    """Where a program is, or was, attached.

    ``target`` is what to call it. ``namespace`` and ``interface`` are set for a network interface;
    an empty namespace is the test's own. ``gone`` says why nothing is attached there any more.
    """

    target: str
    namespace: str = ""
    interface: str = ""
    gone: str = ""


@dataclass(frozen=True)
class TestRun:
    """One ``test_run``: what it got, and what it gave; ``after`` is None without a packet.

    ``lines`` is the C that it ran, with counts, where lines are counted.
    """

    __test__ = False

    packet: Packet
    context: str
    verdict: str
    after: Packet | None = None
    lines: str = ""


@dataclass(frozen=True)
class Call:
    """A call of a helper in a program's code, and the line of C that it stands in."""

    helper: str
    place: str
    text: str = ""


@dataclass(frozen=True)
class Bound:
    """A comparison with a constant in a program's code: ``text`` is the line of C."""

    value: int
    place: str
    text: str = ""


@dataclass(frozen=True)
class TailCall:
    """A tail call: ``index`` is None where it is no constant."""

    map: str
    index: int | None
    place: str = ""


@dataclass(frozen=True)
class Code:
    """What a program's instructions tell without running them."""

    calls: tuple[Call, ...] = ()
    bounds: tuple[Bound, ...] = ()
    tail_calls: tuple[TailCall, ...] = ()
    swaps_bytes: bool = False


@dataclass(frozen=True)
class ProgramState:
    """A program; ``runs`` is None where statistics were off while it was there.

    ``verdicts`` are what it returned, and how often, where the test's path was recorded.
    """

    name: str
    type: str
    source: str = ""
    hooks: tuple[Hook, ...] = ()
    needs_hook: bool = True
    runs: int | None = None
    misses: int = 0
    test_runs: tuple[TestRun, ...] = ()
    code: Code = field(default_factory=Code)
    verdicts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ElementChange:
    """An element or a variable that is not what it was when the object was loaded.

    ``numbers`` are those in the key and in the value; ``cpus`` the CPUs that have a value of a
    per-CPU map.
    """

    where: str
    before: str
    now: str
    size: float = 0.0
    numbers: tuple[int, ...] = ()
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class EventState:
    """A ring or perf buffer; ``lost`` is None where nobody counted them, though there was no room.

    ``read`` is None where the test has no reader of it.
    """

    read: int | None
    pending: int | None
    lost: int | None


@dataclass(frozen=True)
class MapState:
    """A map: its changes since the load, the largest first, of ``changed`` that there are.

    ``refused`` are the errors with which updates failed, and how often, where the test's
    path was recorded.
    """

    name: str
    type: str
    entries: int | None = None
    max_entries: int = 0
    changes: tuple[ElementChange, ...] = ()
    changed: int = 0
    per_cpu: bool = False
    older_pin: str = ""
    slots: tuple[int, ...] = ()
    events: EventState | None = None
    unread: str = ""
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def full(self) -> bool:
        """Whether no key finds room any more."""
        return (
            self.entries is not None
            and 0 < self.max_entries <= self.entries
            and self.type in {"hash", "percpu_hash", "lpm_trie", "queue", "stack", "devmap_hash"}
        )


@dataclass(frozen=True)
class InterfaceState:
    """What went through one interface of the test's places, in packets; ``xdp`` by counter."""

    namespace: str
    name: str
    rx: int
    tx: int
    xdp: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Passed:
    """The last packets that passed an interface, ``"left.veth0"``, of ``count``, a line each."""

    where: str
    packets: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Drop:
    """Packets dropped for one reason, the kernel's; ``where`` is a function or a counter."""

    namespace: str
    reason: str
    packets: int
    where: str = ""


@dataclass(frozen=True)
class Failure:
    """What pytest says: the message, and the figures that broke a limit, by metric and subject."""

    text: str = ""
    over_budget: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All of it. ``notes`` say what could not be seen, and why.

    ``traced`` says that the test's path was recorded, and verdicts counted where that can be.
    """

    failure: Failure = field(default_factory=Failure)
    programs: tuple[ProgramState, ...] = ()
    maps: tuple[MapState, ...] = ()
    interfaces: tuple[InterfaceState, ...] = ()
    passed: tuple[Passed, ...] = ()
    drops: tuple[Drop, ...] = ()
    printed: tuple[str, ...] = ()
    cpus: int = 1
    notes: tuple[str, ...] = ()
    traced: bool = False
