"""Functions that are called and functions that are inlined: the same answers, cost, and size.

Real sends drive the programs at their hooks. What depends on the sender's name alone is run by
``test_run``, which runs a program as the thread that calls it.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf import DifferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_bpf import Loader, Measure, Namespace, Object, Program
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.plugin.fuzzing import CheckEquivalence, FindWorst

    Connection = tuple[socket.socket, socket.socket]

kprobe = pytest.param("on_call", marks=pytest.mark.bpf_requires(attach="kprobe"))
tracepoint = pytest.param(
    "on_return",
    marks=pytest.mark.bpf_requires(attach="tp_btf", btf_type="btf_trace_sock_send_length"),
)
either_hook = pytest.mark.parametrize("hook", [kprobe, tracepoint])
exact = pytest.mark.bpf_requires(exact=True)

SIZES = [*range(1, 100), 1024, 16_384]
"""Bytes of one send each."""

OTHERS = ["nginxfoo", "nginx: worker", "ngin", "Nginx", "xnginx", "n", "fifteen letters"]
"""Names of other programs."""

INLINED, STATIC, GLOBAL = "static __always_inline", "static __noinline", "__noinline"
"""What a function can be."""


@pytest.fixture
def connection(bpf_netns: Namespace) -> Iterator[Connection]:
    """Both ends of a connection."""
    with bpf_netns.traffic.listen_tcp() as listening, bpf_netns.socket() as client:
        client.connect(listening.getsockname()[:2])
        server, _ = listening.accept()
        with server:
            yield client, server


@either_hook
def test_both_count_what_nginx_sends(bpf: Loader, connection: Connection, hook: str) -> None:
    before, after = load(bpf, hook)
    with before.programs[hook].attach(), after.programs[hook].attach():
        begin = time.monotonic_ns()
        send(connection, [7, 7])
        with named("nginx"):
            send(connection, SIZES)
        end = time.monotonic_ns()
    for obj in (before, after):
        assert counted(obj) == (len(SIZES), sum(SIZES))
        assert begin < obj.globals["last"] < end


def test_both_know_nginx_by_its_whole_name(bpf: Loader) -> None:
    for obj in load(bpf, "on_run"):
        for name in OTHERS:
            run_as(name, obj)
            assert counted(obj) == (0, 0)
        run_as("nginx", obj)
        assert counted(obj) == (3, 300)


def test_a_name_compared_without_its_end_is_a_prefix(bpf: Loader) -> None:
    prefix = bpf.load("prefix.bpf.c", globals={"tgid": os.getpid()})
    run_as("ngin", prefix)
    assert counted(prefix) == (0, 0)
    run_as("nginxfoo", prefix)
    assert counted(prefix) == (3, 300)  # of another program
    others = bpf.load("prefix.bpf.c", globals={"tgid": os.getppid()})
    run_as("nginx", others)
    assert counted(others) == (0, 0)


def test_both_leave_other_processes_alone(bpf: Loader) -> None:
    for obj in load(bpf, "on_run", tgid=os.getppid()):
        run_as("nginx", obj)
        assert counted(obj) == (0, 0)


@pytest.mark.bpf_claim("inlined functions take less to verify than called ones", row=3)
def test_inlined_functions_take_less_to_verify(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    before, after = (obj.programs["on_run"] for obj in load(bpf, "on_run"))
    assert after.prog_size_jited <= 0.9 * before.prog_size_jited
    old, new = before.verified_insns, after.verified_insns
    bpf_claim(new <= 0.9 * old, before=old, after=new, unit="instructions verified")


@exact
@pytest.mark.bpf_requires(attach="kprobe")
@pytest.mark.bpf_claim("inlined functions cost less than called ones", row=3)
def test_inlined_functions_cost_less(
    bpf: Loader,
    bpf_measure: Measure,
    bpf_claim: ClaimCheck,
    connection: Connection,
) -> None:
    def cost(obj: Object, name: str) -> float:
        program = obj.programs["on_call"]
        with program.attach(), named(name):
            return own_cost(bpf_measure, program, lambda: send(connection, [64] * 50))

    before, after = load(bpf, "on_call")
    assert cost(after, "other") < cost(before, "other")
    old, new = cost(before, "nginx"), cost(after, "nginx")
    assert new >= 0.75 * old  # it is not much
    bpf_claim(new < old, before=old, after=new, unit="instructions a send")


def test_a_function_answers_the_same_however_it_is_called(bpf: Loader) -> None:
    for function in (INLINED, STATIC, GLOBAL):
        obj = bpf.load("call_sites.bpf.c", defines={"FUNCTION": function})
        for word in (0, 1, 2**31, 2**32 - 1):
            obj.programs["sixteen"].test_run(context=[word])
            assert obj.globals["answer"] == mixed(word)


@pytest.mark.bpf_claim("inlined functions make a program smaller", row=3, verdict="holds in part")
def test_sixteen_copies_are_larger_than_sixteen_calls(bpf: Loader, bpf_claim: ClaimCheck) -> None:
    inlined, static, globally = (sixteen(bpf, how) for how in (INLINED, STATIC, GLOBAL))
    once_before, once_after = (obj.programs["on_run"] for obj in load(bpf, "on_run"))
    assert static.verified_insns >= inlined.verified_insns  # each call is followed
    assert globally.verified_insns <= 0.3 * static.verified_insns  # verified once, for any call
    before, after = static.prog_size_jited, inlined.prog_size_jited
    bpf_claim(
        {
            "used once": once_after.prog_size_jited < once_before.prog_size_jited,
            "used sixteen times": after < before,
        },
        f"verified {static.verified_insns} → {inlined.verified_insns}, "
        f"as a global function {globally.verified_insns}",
        before=before,
        after=after,
        unit="bytes, used sixteen times",
    )


@exact
def test_sixteen_copies_run_faster_than_sixteen_calls(bpf: Loader, bpf_measure: Measure) -> None:
    inlined, static = (
        own_cost(bpf_measure, program, lambda: program.test_run(context=[1], repeat=50))  # noqa: B023
        for program in (sixteen(bpf, INLINED), sixteen(bpf, STATIC))
    )
    assert inlined <= 0.9 * static


def load(bpf: Loader, program: str, *, tgid: int = 0) -> tuple[Object, Object]:
    """Load what was before and what came after, with one of their programs."""
    before, after = (
        bpf.load(source, programs=[program], globals={"tgid": tgid or os.getpid()})
        for source in ("before.bpf.c", "after.bpf.c")
    )
    return before, after


def sixteen(bpf: Loader, function: str) -> Program:
    """Load the program that uses one function sixteen times."""
    return bpf.load("call_sites.bpf.c", defines={"FUNCTION": function}).programs["sixteen"]


def own_cost(measure: Measure, program: Program, drive: Callable[[], object]) -> float:
    """Return what a run costs without what calling an empty program costs."""
    cost = measure(program, drive, batches=11)
    return cost.per_run - (cost.empty or 0)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Call this thread so for a while."""
    comm = Path("/proc/thread-self/comm")
    own = comm.read_text().rstrip("\n")
    comm.write_text(name)
    try:
        yield
    finally:
        comm.write_text(own)


def run_as(name: str, obj: Object) -> None:
    """Run a program as a thread of this name that sends 100 bytes, three times."""
    with named(name):
        obj.programs["on_run"].test_run(context=[100], repeat=3)


def send(connection: Connection, sizes: Sequence[int]) -> None:
    """Send so many bytes, one call each, and take them out at the other end."""
    client, server = connection
    for size in sizes:
        assert client.send(bytes(size)) == size
        assert len(server.recv(size, socket.MSG_WAITALL)) == size


def counted(obj: Object) -> tuple[int, int]:
    """Return the sends and their bytes."""
    return obj.globals["sends"], obj.globals["bytes"]


def mixed(word: int) -> int:
    """Return what sixteen calls of ``mix`` should answer."""
    answer = 0
    for step in range(16):
        for byte in ((word + step) % 2**32).to_bytes(4, "little"):
            answer = (answer + byte) * 1025 % 2**32
            answer ^= answer >> 6
    return answer


def test_inlined_is_the_same_for_every_name_and_process_tried(
    bpf_equivalent: CheckEquivalence,
) -> None:
    result = bpf_equivalent("before.bpf.c", "after.bpf.c", programs=["on_run"], count=5000)
    assert result.before.reach.blocks == result.before.reach.all_blocks
    assert result.after.insns < result.before.insns


def test_a_name_that_only_begins_right_is_found_without_a_hint(
    bpf_equivalent: CheckEquivalence,
) -> None:
    with pytest.raises(DifferenceError, match=r"comm: b'nginx.+'\n"):
        bpf_equivalent(
            "before.bpf.c", "prefix.bpf.c", program="on_run", ignore=["last"], programs=["on_run"]
        )


@pytest.mark.parametrize("function", [STATIC, GLOBAL])
def test_a_function_is_the_same_for_every_input_however_it_is_called(
    bpf: Loader, bpf_equivalent: CheckEquivalence, function: str
) -> None:
    inlined, called = (
        bpf.load("call_sites.bpf.c", defines={"FUNCTION": how}) for how in (INLINED, function)
    )
    bpf_equivalent(inlined, called, count=5000)


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_claim("inlined functions cost less in the worst case, too", row=3)
def test_the_worst_case(bpf_worst: FindWorst, bpf_claim: ClaimCheck) -> None:
    before, after = (
        bpf_worst(f"{when}.bpf.c", program="on_run", programs=["on_run"], count=2000)
        for when in ("before", "after")
    )
    bpf_claim(
        after.instructions <= before.instructions,
        f"of BPF {before.insns} and {after.insns}",
        before=before.instructions,
        after=after.instructions,
        unit="instructions, the dearest name found",
    )
