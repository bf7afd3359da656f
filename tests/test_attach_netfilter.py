"""Programs at the netfilter hooks of a network namespace."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import AttachError, UnavailableError
from pytest_bpf.kernel import features
from pytest_bpf.netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Load

pytestmark = pytest.mark.skipif(
    not features.program_type("netfilter"), reason="this kernel has no netfilter programs"
)

SOURCE = """
__u64 order, hits; int verdict = 1;
SEC("netfilter") int first(struct bpf_nf_ctx *ctx) {
    hits++; order = order * 10 + 1; return verdict ? 1 : 0; }
SEC("netfilter") int second(struct bpf_nf_ctx *ctx) { order = order * 10 + 2; return 1; }
"""


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


@pytest.fixture
def receiver(namespace: Namespace) -> Iterator[socket.socket]:
    """Without it the kernel answers, which is a second packet."""
    with namespace.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 9))
        bound.setblocking(False)
        yield bound


def send(namespace: Namespace) -> None:
    with namespace.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))


@pytest.mark.usefixtures("receiver")
def test_a_hook_sees_the_packets_of_its_namespace(load: Load, namespace: Namespace) -> None:
    obj = load(SOURCE)
    with obj.programs["first"].attach(namespace, hook="local_out") as link:
        send(namespace)
        assert obj.globals["hits"] == 1
        assert (link.info.type, link.info.hook, link.info.priority) == ("netfilter", 3, 0)
    send(namespace)
    assert obj.globals["hits"] == 1


@pytest.mark.usefixtures("receiver")
def test_the_lower_priority_runs_first(load: Load, namespace: Namespace) -> None:
    obj = load(SOURCE)
    obj.programs["second"].attach(namespace, hook="local_out", priority=20)
    obj.programs["first"].attach(namespace, hook="local_out", priority=10)
    send(namespace)
    assert obj.globals["order"] == 12


def test_a_packet_that_is_dropped_does_not_come(
    load: Load, namespace: Namespace, receiver: socket.socket
) -> None:
    obj = load(SOURCE)
    obj.globals["verdict"] = 0  # NF_DROP
    with obj.programs["first"].attach(namespace, hook="local_in"):
        send(namespace)
        with pytest.raises(BlockingIOError):
            receiver.recv(10)
    send(namespace)
    assert receiver.recv(10) == b"x"


def test_what_is_wrong_is_said(load: Load, namespace: Namespace) -> None:
    program = load(SOURCE).programs["first"]
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "takes hook= one of pre_routing, local_in, .*, not None"),
        ({"hook": "local_inn"}, "not 'local_inn'; did you mean 'local_in'"),
        ({"hook": "local_in", "family": "ipx"}, "takes family= 'ipv4' or 'ipv6', not 'ipx'"),
        ({"hook": "local_in", "direction": "ingress"}, "not direction="),
    )
    for options, words in wrong:
        with pytest.raises(AttachError, match=words):
            program.attach(namespace, **options)
    with pytest.raises(AttachError, match="attaches to a network namespace, not to None"):
        program.attach(hook="local_in")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_defrag_or_which_module_is_not_loaded(
    load: Load, namespace: Namespace, family: str
) -> None:
    program = load(SOURCE, programs=["first"]).programs["first"]
    options: dict[str, Any] = {"hook": "local_in", "family": family, "priority": 1, "defrag": True}
    try:
        assert program.attach(namespace, **options).attached
    except UnavailableError as error:
        needs = f"defrag=True needs the kernel's module nf_defrag_{family}, which is not loaded"
        assert needs in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 2**31 - 1}, "priority=2147483647 is out of range, -2147483647 to 2147483646"),
        ({"priority": -(2**31)}, "ERANGE.*priority=-2147483648 is out of range"),
        ({"priority": -400, "defrag": True}, "-400 is out of range, -399 to .* with defrag=True"),
        ({"priority": 3}, "EBUSY.*a program with priority=3 is at that hook, take another"),
    ],
)
def test_priorities_that_are_none_or_taken(
    options: dict[str, Any], words: str, load: Load, namespace: Namespace
) -> None:
    program = load(SOURCE, programs=["first"]).programs["first"]
    with (
        program.attach(namespace, hook="local_in", priority=3),
        pytest.raises(AttachError, match=words),
    ):
        program.attach(namespace, hook="local_in", **options)


def test_what_is_no_namespace(load: Load) -> None:
    program = load(SOURCE, programs=["first"]).programs["first"]
    for target in ("/", os.open("/", os.O_RDONLY)):
        with pytest.raises(AttachError, match=r"attaches to a network namespace, and .+ is none"):
            program.attach(target, hook="local_in")
        if isinstance(target, int):
            os.close(target)
