"""Whole agents: attached, read, measured and ended, and what they do wrong said."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import AgentError, AttachError, StimulusError, compile_source
from pytest_bpf.agents import Agents
from pytest_bpf.agents.buffers import open_buffers
from pytest_bpf.agents.load import Load
from pytest_bpf.agents.log import CAPACITY, Log
from pytest_bpf.agents.measurement import Counts, lost
from pytest_bpf.agents.single_events import SingleEvent
from pytest_bpf.bcc import headers
from pytest_bpf.cgroup.cgroupfs import current
from pytest_bpf.kernel.sys import ids
from pytest_bpf.kernel.sys.bpffs import PinDirectory
from pytest_bpf.kernel.sys.descriptors import open_objects
from pytest_bpf.kernel.sys.perf_event import open_bpf_output
from pytest_bpf.kernel.sys.processes import ends
from pytest_bpf.netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(__file__).parent / "agents"

Command = list[str]

HOOK = "tracepoint:syscalls:sys_enter_sched_get_priority_max"


def load(count: int) -> None:
    """Make a system call that nobody else makes, so often."""
    for _ in range(count):
        os.sched_get_priority_max(os.SCHED_OTHER)


def gone(pid: int) -> bool:
    """Say whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command of an agent of our own, in C on libbpf, that reports `load`."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler for the agent: install gcc or clang")
    binary = tmp_path_factory.mktemp("agent") / "watch"
    command = [compiler, "-O1", "-o", str(binary), str(SOURCES / "agent.c"), "-lbpf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the agent cannot be built, libbpf-dev or libc6-dev is missing: {done.stderr}")
    return [str(binary), str(compile_source(SOURCES / "watch.bpf.c").object)]


def own_cgroups() -> set[Path]:
    """Return the cgroups that this process made; others may run beside it."""
    return set(current().glob(f"pytest-bpf-*-{os.getpid()}-*"))


@pytest.fixture
def agents() -> Iterator[Agents]:
    """Agents that leave nothing: no descriptor, no process, no cgroup."""
    before, cgroups = open_objects(), own_cgroups()
    with Agents() as started:
        yield started
    assert open_objects() == before
    assert own_cgroups() <= cgroups
    for agent in started.started:
        with pytest.raises(ProcessLookupError):
            os.kill(agent.pid, 0)


def test_an_agent_is_given_once_it_is_attached(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    load(3)
    assert agent.running
    assert agent.maps["counted"][0].number == 3
    program = agent.programs["watch_priority_max"]
    assert program.type == "tracepoint"
    assert program.verified_insns > 0
    assert agent.links["watch_priority_max"].attached
    assert [process.name() for process in agent.processes] == ["watch"]
    assert agent.printed.wait_for("^event 3$", timeout=120)
    assert agent.output.startswith("ready\nevent 1\n")
    agent.stop()
    assert not agent.running
    assert agent.output.endswith("bye\n")
    assert not ids.exists("prog", program.id)


def test_what_is_the_agent_s_is_not_taken_apart(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    with pytest.raises(AttachError, match="is another process's: end that one"):
        agent.links["watch_priority_max"].detach()
    load(1)
    assert agent.maps["counted"][0].number == 1


def test_a_program_of_another_process_is_attached_elsewhere(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    program = agent.programs["watch_priority_max"]
    with pytest.raises(AttachError, match="its section does not say where"):
        program.attach()
    with program.attach("syscalls:sys_enter_sched_get_priority_min") as link:
        assert link.id > 0
        os.sched_get_priority_min(os.SCHED_OTHER)
    os.sched_get_priority_min(os.SCHED_OTHER)
    assert agent.maps["counted"][0].number == 1


def test_an_agent_under_load(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    cost = agent.under(load, rate=500, seconds=0.4)
    assert cost.events == 200
    assert cost.lost == 0
    assert cost.runs >= 200
    assert 0 < cost.processes < 1
    assert 0 < cost.programs < 1
    assert 1 << 16 < (cost.memory or 0) < 100 << 20, "more than its ring, less than LLVM"
    assert cost.latency
    assert 0 < cost.latency.count <= 200
    assert 0 < cost.latency.p50 <= cost.latency.p99 < 1e9
    figures = {figure.metric: figure for figure in cost.figures if figure.subject == "agent watch"}
    assert set(figures) > {"cpu", "memory", "loss", "latency_p99"}
    assert figures["loss"].value == 0
    assert figures["memory"].value == cost.memory
    assert figures["cpu"].value == pytest.approx(cost.processes + cost.programs)
    assert len(figures["cpu"].samples) == 10
    assert str(cost).startswith("watch: 200 events in 0.")


def test_an_agent_that_reads_late_has_late_events(agents: Agents, watch: Command) -> None:
    agent = agents([*watch, "slow"])
    cost = agent.under(load, rate=200, seconds=0.2)
    assert cost.lost == 0
    assert cost.latency
    assert cost.latency.max > 50e6, "it reads every 200 ms"


def test_events_that_found_no_room_are_lost(agents: Agents, watch: Command) -> None:
    """65,536 bytes hold 4,096 events of 16 bytes with their headers, and nobody reads."""
    agent = agents([*watch, "slow"])
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        load(4096)
        with_no_room = agent.under(load, rate=10_000, seconds=0.05, delivered=lambda: 0)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    assert with_no_room.loss == 1
    figure = next(f for f in with_no_room.figures if f.metric == "loss")
    assert figure.value == 1


def test_what_an_agent_did_not_read_is_not_called_delivered(agents: Agents, watch: Command) -> None:
    agent = agents([*watch, "slow"])
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        cost = agent.under(load, rate=1000, seconds=0.05, samples=1)
    finally:
        os.kill(agent.pid, signal.SIGCONT)
    assert cost.loss is None
    figure = next(f for f in cost.figures if f.metric == "loss")
    assert "it had not read all that is in its buffers" in figure.why_not


@pytest.mark.parametrize(
    ("output", "lost"),
    [
        ("Lost 12 events\nLost 3 events\n", 15),
        ("Possibly lost 7 samples\n", 7),
        ("dropped: 4 records\n", 4),
        ("lost in the post\n3 events\n", 0),
    ],
)
def test_what_agents_say_they_lost(output: str, lost: int) -> None:
    from pytest_bpf.agents.measurement import LOST, reported_lost

    assert reported_lost(output, LOST) == lost


class _Programs:
    """An agent of which only the kinds of programs are looked at."""

    def __init__(self, **kinds: str) -> None:
        self.programs = {name: SimpleNamespace(type=kind) for name, kind in kinds.items()}


@pytest.mark.parametrize(
    ("told", "size", "gone"),
    [
        ({"runs": {"p": 100}}, 0, 0),
        ({"runs": {"p": 140}}, 0, 0),
        ({"runs": {"p": 90, "q": 70}}, 0, 10),
        ({"runs": {"p": 100}, "missed": 3, "reported_lost": 4.0}, 0, 7),
        ({"runs": {"p": 100}, "stored": 16 * 60}, 16, 40),
        ({"runs": {"p": 100}, "stored": 16 * 160}, 16, 0),
        ({"runs": {"p": 100}, "stored": 0, "arrived": 99.0}, 16, 1),
        ({"runs": {"sampler": 5}}, 0, 0),
        ({"runs": {"p": 100}, "unknown": "it had not read all"}, 0, None),
    ],
)
def test_how_many_events_were_lost(told: dict[str, Any], size: int, gone: float | None) -> None:
    """Of 100; ``size`` bytes is what a single event takes up in the agent's buffers."""
    agent: Any = _Programs(p="tracepoint", q="kprobe", sampler="perf_event")
    plain = {"slices": (), "missed": 0, "stored": 0, "reported_lost": 0.0, "arrived": None}
    counts = Counts(**{**plain, "unknown": "", **told})
    singles = [SingleEvent(1000, size), SingleEvent(2000, size), SingleEvent(900, 0)]
    assert lost(agent, 100, counts, singles)[0] == gone


def test_what_is_printed_under_a_load_is_kept_as_a_whole() -> None:
    reader, writer = os.pipe()
    log = Log(reader)
    with os.fdopen(writer, "wb", buffering=0) as out:
        out.write(b"before\n")
        assert log.wait_for("before", 30)
        position = log.position
        with log.keep():
            out.write(b"lost 12 events\n" + b"." * (2 * CAPACITY) + b"\nall of it\n")
            assert log.wait_for("^all of it", 30)
            text, gone = log.since(position)
            assert (text[:15], gone) == ("lost 12 events\n", 0)
        out.write(b"after\n")
        assert log.wait_for("^after", 30)
    log.close()
    text, gone = log.since(position)
    assert text.endswith("after\n")
    assert (len(text), position + gone + CAPACITY) == (CAPACITY, log.position)


def test_a_buffer_that_nobody_else_sees_is_counted() -> None:
    agent: Any = SimpleNamespace(maps={}, pids=lambda: [os.getpid()])

    def count() -> tuple[int, int]:
        buffers, others = open_buffers(agent)
        for buffer in buffers:
            buffer.close()
        return len(buffers), others

    seen, unseen = count()
    fd = open_bpf_output(0)[0]
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    size = 2 * mmap.PAGESIZE
    address = library.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    assert address != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    try:
        assert count() == (seen + 1, unseen)
        os.close(fd)
        assert count() == (seen, unseen + 1)
    finally:
        library.munmap(ctypes.c_void_p(address), size)


def test_a_load_makes_all_its_events_in_slices() -> None:
    made: list[int] = []
    slices = list(Load(made.append, rate=10_000, seconds=0.05).run())
    assert len(slices) == 10
    assert sum(slices) == sum(made) == 500
    assert max(made) < 500, "not all at once"
    assert Load(made.append, rate=1, seconds=0.01).count == 10
    with pytest.raises(StimulusError, match="a load of 0 events a second for 1 s makes none"):
        Load(made.append, rate=0, seconds=1)


def test_a_load_that_is_not_its_own(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    with pytest.raises(AgentError, match=r"none of its programs \(watch_priority_max\) ran under"):
        agent.under(lambda _: None, rate=100, seconds=0.1)


def test_an_agent_in_a_namespace(agents: Agents, watch: Command) -> None:
    with Namespace("there") as there:
        agent = agents(watch, namespace=there)
        inside = Path(f"/proc/{agent.pid}/ns/net").stat().st_ino
        assert inside == there.inode
        agent.stop()


def test_an_agent_waited_for_by_name_and_output(agents: Agents, watch: Command) -> None:
    agent = agents(watch, programs=["watch_priority_max"], ready="^ready$")
    assert list(agent.programs) == ["watch_priority_max"]
    with pytest.raises(
        AgentError, match=r"should \(watch_priority_min; it holds watch_priority_max\) within 0.2 s"
    ):
        agents(watch, programs=["watch_priority_min"], timeout=0.2)
    with pytest.raises(AgentError, match=r"did not print what matches 'steady' within 0.2 s"):
        agents(watch, ready="steady", timeout=0.2)


@pytest.mark.skipif(not shutil.which("bpftrace"), reason="no bpftrace; apt install bpftrace")
@pytest.mark.parametrize("action", ["@ = count();", 'printf("%d\\n", pid);'])
def test_bpftrace_keeps_the_four_targets(agents: Agents, action: str) -> None:
    agent = agents(["bpftrace", "-e", f"{HOOK} {{ {action} }}"])
    cost = agent.under(load, rate=100, seconds=0.5)
    cpu = next(figure for figure in cost.figures if figure.metric == "cpu")
    assert cpu.lower is not None
    assert cpu.lower < 0.02, cost
    assert (cost.memory or 0) < 200e6, cost
    assert cost.lost == 0, cost
    assert cost.latency, cost
    if action.startswith("@"):
        assert cost.latency.p50 < 1e6, "in company the reader's time is the company's"
    assert agent.links.keys() == agent.programs.keys()
    assert next(iter(agent.links.values())).target == f"tracepoint {HOOK.rpartition(':')[2]}"


@pytest.mark.skipif(not shutil.which("tcpstates-bpfcc"), reason="apt install bpfcc-tools")
def test_a_tool_of_bcc(agents: Agents) -> None:
    environment = headers.environment(headers.usable())
    agent = agents("tcpstates-bpfcc", env={**environment, "PYTHONUNBUFFERED": "1"})
    assert {link.target for link in agent.links.values()} == {"tracepoint inet_sock_set_state"}
    assert agent.programs.keys() == {"tracepoint__sock__inet_sock_set_state"}
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect(count: int) -> None:
            for _ in range(count):
                socket.create_connection(server.getsockname()).close()
                server.accept()[0].close()

        cost = agent.under(connect, rate=20, seconds=0.5, samples=20)
    assert cost.lost == 0
    assert cost.latency
    assert agent.printed.wait_for(rf"^\S+ +{os.getpid()} .*SYN_SENT +-> ESTABLISHED", timeout=120)


# -- what agents do wrong ----------------------------------------------------------------------


def test_no_such_command(agents: Agents) -> None:
    with pytest.raises(AgentError, match="cannot start 'no-such-agent': there is no such command"):
        agents("no-such-agent --verbose")
    with pytest.raises(AgentError, match="this one is empty"):
        agents("")


def test_an_agent_that_ends_before_it_attaches(agents: Agents, watch: Command) -> None:
    with pytest.raises(AgentError) as caught:
        agents([watch[0], "/no/such/object"])
    assert "agent 'watch' ended before it attached its programs: exit status 1" in str(caught.value)
    assert str(caught.value).endswith("    cannot load /no/such/object")
    assert "cannot load" in caught.value.output


def test_an_agent_that_loads_nothing(agents: Agents) -> None:
    with pytest.raises(AgentError, match=r"^agent 'sleep' loaded no program within 0.2 s; it pri"):
        agents("sleep 1000", timeout=0.2)


def test_an_agent_that_loads_and_does_not_attach_is_given_after_a_rest(
    agents: Agents, watch: Command
) -> None:
    agent = agents([*watch, "idle"])
    assert not agent.links
    with pytest.raises(AgentError, match="did not attach the programs it should"):
        agents([*watch, "idle"], programs=1, timeout=0.2)


def test_an_agent_that_dies(watch: Command) -> None:
    agents = Agents()
    agents([*watch, "die"], programs=0)._process.wait(120)
    with pytest.raises(AgentError, match="'watch' died before the test ended: exit status 3"):
        agents.close()


def test_a_dead_agent_is_put_under_no_load(agents: Agents, watch: Command) -> None:
    agent = agents(watch)
    os.kill(agent.pid, signal.SIGKILL)
    agent._process.wait(120)
    with pytest.raises(AgentError, match="ended before it was put under load: killed by SIGKILL"):
        agent.under(load, rate=100)


def test_an_agent_that_dies_under_load(agents: Agents, watch: Command) -> None:
    agent = agents(watch)

    def deadly(count: int) -> None:
        load(count)
        if agent.running:
            pidfd = os.pidfd_open(agent.pid)
            os.kill(agent.pid, signal.SIGKILL)
            assert ends(pidfd, 60)
            os.close(pidfd)

    with pytest.raises(AgentError, match="ended before it had stood the load: killed by SIGKILL"):
        agent.under(deadly, rate=100, seconds=0.1)


def test_an_agent_that_may_end_by_itself(agents: Agents, watch: Command) -> None:
    agent = agents([*watch, "die"], programs=0)
    assert agent.wait(timeout=120) == 3


def test_an_agent_that_ignores_the_signal(watch: Command) -> None:
    agents = Agents()
    agent = agents([*watch, "ignore"], grace=0.2)
    with pytest.raises(AgentError, match=r"'watch' ignored SIGTERM for 0.2 s and was killed; its"):
        agents.close()
    assert not agent.running


def test_an_agent_that_leaves_a_program(watch: Command) -> None:
    with PinDirectory() as pins:
        path = pins.path / "left"
        agents = Agents()
        agent = agents([*watch, "pin", str(path)])
        number = agent.programs["watch_priority_max"].id
        with pytest.raises(AgentError, match=rf"'watch' left program {number}, map \d+.* in the k"):
            agents.close()
        assert ids.exists("prog", number)


def test_an_agent_that_is_to_leave_a_program(watch: Command) -> None:
    with PinDirectory() as pins, Agents() as agents:
        agents([*watch, "pin", str(pins.path / "left")], keeps=True)


def test_an_agent_that_leaves_a_process(watch: Command) -> None:
    agents = Agents()
    agent = agents([*watch, "fork"])
    (child,) = (pid for pid in agent.pids() if pid != agent.pid)
    with pytest.raises(AgentError, match=rf"left processes running, .* killed: {child} \(watch\)"):
        agents.close()
    assert gone(child)


# -- in a test of a user -----------------------------------------------------------------------


@pytest.fixture
def user(pytester: pytest.Pytester, watch: Command) -> Callable[..., pytest.RunResult]:
    def run(text: str, *arguments: str) -> pytest.RunResult:
        header = f"import os\nWATCH = {watch!r}\n"
        pytester.makepyfile(header + text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    return run


def test_the_output_is_in_the_report_of_a_failure(user: Callable[..., pytest.RunResult]) -> None:
    result = user(
        "def test_it(bpf_agent):\n"
        "    agent = bpf_agent(WATCH)\n"
        "    os.sched_get_priority_max(0)\n"
        "    assert agent.printed.wait_for('event 1', 5)\n"
        "    assert not agent.running\n"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*Captured output of agent watch*", "ready", "event 1", "*1 failed*"]
    )


BUDGET = """
import pytest

def load(count):
    for _ in range(count):
        os.sched_get_priority_max(0)

@pytest.mark.bpf_budget("agent")
def test_bpftrace(bpf_agent):
    bpf_agent("bpftrace -e 'tracepoint:syscalls:sys_enter_sched_get_priority_max { @ = count(); }'"
        ).under(load, rate=200, seconds=0.3)

@pytest.mark.bpf_budget(memory="100kB")
def test_memory(bpf_agent):
    bpf_agent(WATCH).under(load, rate=200, seconds=0.2)

@pytest.mark.bpf_budget(latency_p99="1ms")
def test_latency(bpf_agent):
    bpf_agent([*WATCH, "slow"]).under(load, rate=200, seconds=0.2)
"""


@pytest.mark.skipif(not shutil.which("bpftrace"), reason="no bpftrace; apt install bpftrace")
def test_a_budget_for_the_whole_agent(user: Callable[..., pytest.RunResult]) -> None:
    result = user(BUDGET)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "agent watch: memory * breaks its limit of 100 kB: *",
            "agent watch: latency_p99 * ms breaks its limit of 1 ms: *",
        ]
    )


def test_a_fault_is_an_error_of_the_test(user: Callable[..., pytest.RunResult]) -> None:
    result = user("def test_it(bpf_agent):\n    bpf_agent([*WATCH, 'ignore'], grace=0.1)\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E *AgentError: agent 'watch' ignored SIGTERM for 0.1 s and was*"])


def test_no_process_outlives_a_killed_pytest(pytester: pytest.Pytester, watch: Command) -> None:
    import sys

    told = pytester.path / "pids"
    pytester.makepyfile(
        "import pathlib, time\n"
        "def test_it(bpf_agent):\n"
        f"    agent = bpf_agent([*{watch!r}, 'fork'])\n"
        f"    pathlib.Path({str(told)!r}).write_text(' '.join(map(str, agent.pids())) + '\\n')\n"
        "    time.sleep(1000)\n"
    )
    running = subprocess.Popen([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"])
    until = time.monotonic() + 60
    while not (told.exists() and told.read_text().endswith("\n")):
        assert time.monotonic() < until
        assert running.poll() is None
        time.sleep(0.01)
    pids = list(map(int, told.read_text().split()))
    assert len(pids) == 2
    running.kill()
    running.wait(60)
    while not all(map(gone, pids)):
        assert time.monotonic() < until, "an agent's process is left"
        time.sleep(0.01)
