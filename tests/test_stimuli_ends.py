"""Served ends: a test with a client of its own reads exact counts afterwards."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.topology import pair
from pytest_bpf.traffic.ends import DRAIN, LAST_READ, UdpEnd, serve
from pytest_bpf.traffic.sockets import open_receiver

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as topology:
        left, right = topology
        yield left, right


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("ipv6", [False, True])
def test_a_udp_sink_counts_all_that_arrived_before_the_end(
    ends: tuple[Namespace, Namespace], *, ipv6: bool
) -> None:
    left, right = ends
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    with (
        right.traffic.sink("udp", ipv6=ipv6) as sink,
        left.socket(family, socket.SOCK_DGRAM) as client,
    ):
        for _ in range(5000):
            client.sendto(b"hello", (sink.address, sink.port))
    assert (sink.received, sink.received_bytes) == (5000, 25_000)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_an_end_on_the_loopback_of_a_bare_namespace(protocol: Any) -> None:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with Namespace() as alone, alone.traffic.echo(protocol) as end, alone.socket(type=kind) as own:
        own.connect((end.address, end.port))
        own.send(b"x")
        assert own.recv(1) == b"x"


def test_what_is_queued_at_the_end_is_counted(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    end = UdpEnd(open_receiver(right, socket.SOCK_DGRAM, str(right.ipv4), 0))
    with left.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(3 * DRAIN):
            client.sendto(b"early", (end.address, end.port))
    with serve(end):
        pass
    assert end.received == 3 * DRAIN


def test_a_udp_echo_answers(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with (
        right.traffic.echo("udp", port=53) as server,
        left.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        client.sendto(b"question", (str(right.ipv4), 53))
        assert client.recvfrom(100) == (b"question", (server.address, 53))
    assert server.received == 1


def test_a_tcp_echo_answers_several_clients(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    message = os.urandom(300_000)
    with right.traffic.echo("tcp") as server:
        for _ in range(3):
            with left.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect((server.address, server.port))
                writer = threading.Thread(target=client.sendall, args=(message,))
                writer.start()
                returned = b""
                while len(returned) < len(message):
                    returned += client.recv(1 << 16)
                writer.join()
                assert returned == message
    assert server.connections == 3
    assert server.bytes_by_connection == [len(message)] * 3
    assert server.received_bytes == 3 * len(message)


def test_a_tcp_sink_counts_what_an_open_connection_has_sent(
    ends: tuple[Namespace, Namespace],
) -> None:
    left, right = ends
    with left.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        with right.traffic.sink("tcp", port=8080) as sink:
            client.connect((sink.address, 8080))
            client.sendall(bytes(100_000))
        assert (sink.connections, sink.received_bytes) == (1, 100_000)
        assert client.recv(1) == b""


def test_a_listening_socket_of_ones_own(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    with (
        right.traffic.listen_tcp(ipv6=True) as listening,
        left.socket(socket.AF_INET6, socket.SOCK_STREAM) as client,
    ):
        client.connect(listening.getsockname())
        accepted, address = listening.accept()
        accepted.close()
        assert address[0] == str(left.ipv6)


def test_a_failing_block_leaves_no_thread_and_no_socket(
    ends: tuple[Namespace, Namespace],
) -> None:
    _, right = ends
    before = descriptors(), threading.active_count()
    with pytest.raises(KeyError), right.traffic.sink("tcp", port=81):
        raise KeyError
    assert (descriptors(), threading.active_count()) == before
    right.traffic.listen_tcp(81).close()


def test_an_endless_sender_cannot_keep_an_end_open(ends: tuple[Namespace, Namespace]) -> None:
    left, right = ends
    stop = threading.Event()

    open_sender = threading.Event()

    def send_on(client: socket.socket, address: tuple[str, int]) -> None:
        while not stop.is_set():
            client.sendto(b"more", address)
            open_sender.set()

    with left.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        with right.traffic.sink("udp") as sink:
            sender = threading.Thread(target=send_on, args=(client, (sink.address, sink.port)))
            sender.start()
            assert open_sender.wait(timeout=120)
        assert sender.is_alive()
        stop.set()
        sender.join(timeout=10 * LAST_READ)
    assert sink.received > 0
