"""Attaching to a cgroup: what happens inside is seen and changed, what happens outside is not."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors import AttachError
from pytest_bpf.netns import Namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
__u64 skb_in, skb_out, created, connects, options, reads, devices, ops, hits;
int port;
SEC("cgroup_skb/ingress") int in(struct __sk_buff *skb) { skb_in++; return 1; }
SEC("cgroup_skb/egress") int out(struct __sk_buff *skb) { skb_out++; return 1; }
SEC("cgroup/sock_create") int create(struct bpf_sock *sk) {
    created++; return sk->type != SOCK_DGRAM; }
SEC("cgroup/connect4") int redirect(struct bpf_sock_addr *ctx) {
    connects++; ctx->user_port = bpf_htons(port); return 1; }
SEC("cgroup/getsockopt") int option(struct bpf_sockopt *ctx) {
    int *value = ctx->optval; options++;
    if (ctx->level == 1 && ctx->optname == 8 && (void *)(value + 1) <= ctx->optval_end) {
        *value = 4242; ctx->retval = 0; }
    return 1; }
SEC("cgroup/sysctl") int setting(struct bpf_sysctl *ctx) { reads++; return 0; }
SEC("cgroup/dev") int device(struct bpf_cgroup_dev_ctx *ctx) {
    devices++; return !(ctx->major == 1 && ctx->minor == 5); }
SEC("sockops") int established(struct bpf_sock_ops *ctx) {
    if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB) ops++; return 1; }
"""


@pytest.fixture(scope="module")
def obj(load_once: Load) -> Object:
    return load_once(SOURCE)


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Cgroup]:
    with Cgroup() as made:
        yield made


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with Namespace() as made:
        yield made


def datagram(namespace: Namespace, place: Callable[[Callable[[], None]], object]) -> None:
    """Send one from a socket made in ``place`` to another made there, and receive it."""

    def exchange() -> None:
        kinds = (socket.AF_INET, socket.SOCK_DGRAM)
        with namespace.socket(*kinds) as server, namespace.socket(*kinds) as client:
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)
            client.sendto(b"x", server.getsockname())
            assert server.recv(10) == b"x"

    place(exchange)


def outside(function: Callable[[], None]) -> None:
    function()


@pytest.mark.parametrize("name", ["in", "out"])
def test_packets(obj: Object, cgroup: Cgroup, namespace: Namespace, name: str) -> None:
    with obj.programs[name].attach(cgroup) as link:
        datagram(namespace, cgroup.run)
        assert obj.globals[f"skb_{name}"] == 1
        datagram(namespace, outside)
        assert link.id > 0
        assert str(cgroup.path) in repr(link)
    datagram(namespace, cgroup.run)
    assert obj.globals[f"skb_{name}"] == 1


def test_sockets_are_refused(obj: Object, cgroup: Cgroup, namespace: Namespace) -> None:
    with obj.programs["create"].attach(cgroup.path):
        with pytest.raises(PermissionError):
            datagram(namespace, cgroup.run)
        datagram(namespace, outside)
    assert obj.globals["created"] == 1
    datagram(namespace, cgroup.run)


def test_a_connection_goes_elsewhere(obj: Object, cgroup: Cgroup, namespace: Namespace) -> None:
    with namespace.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        obj.globals["port"] = server.getsockname()[1]

        def connect() -> None:
            with namespace.socket() as client:
                client.connect(("127.0.0.1", 1))

        with obj.programs["redirect"].attach(cgroup), obj.programs["established"].attach(cgroup):
            cgroup.run(connect)
            assert obj.globals["connects"] == 1
            assert obj.globals["ops"] == 1
            with pytest.raises(ConnectionRefusedError):
                connect()
        with pytest.raises(ConnectionRefusedError):
            cgroup.run(connect)
        assert obj.globals["connects"] == 1


def test_socket_options_are_rewritten(obj: Object, cgroup: Cgroup) -> None:
    def receive_buffer() -> int:
        with socket.socket() as made:
            return made.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    plain = receive_buffer()
    with obj.programs["option"].attach(cgroup.fileno()):
        assert cgroup.run(receive_buffer) == 4242
        assert receive_buffer() == plain
    assert cgroup.run(receive_buffer) == plain
    assert obj.globals["options"] == 1


def test_settings_are_hidden(obj: Object, cgroup: Cgroup) -> None:
    setting = Path("/proc/sys/kernel/ostype")
    with obj.programs["setting"].attach(cgroup):
        with pytest.raises(PermissionError):
            cgroup.run(setting.read_text)
        assert setting.read_text() == "Linux\n"
    assert cgroup.run(setting.read_text) == "Linux\n"
    assert obj.globals["reads"] == 1


def test_devices_are_closed(obj: Object, cgroup: Cgroup) -> None:
    def zero() -> None:
        os.close(os.open("/dev/zero", os.O_RDONLY))

    with obj.programs["device"].attach(cgroup):
        with pytest.raises(PermissionError):
            cgroup.run(zero)
        zero()
    cgroup.run(zero)
    assert obj.globals["devices"] >= 1


def test_several_programs_and_a_cgroup_that_goes_first(load: Load) -> None:
    one, other = load(SOURCE), load(SOURCE)
    with Namespace() as namespace:
        with Cgroup() as short:
            links = [of.programs["out"].attach(short) for of in (one, other)]
            datagram(namespace, short.run)
        assert [of.globals["skb_out"] for of in (one, other)] == [1, 1]
        for link in links:
            link.detach()


def test_what_is_no_cgroup(obj: Object, tmp_path: Path) -> None:
    program = obj.programs["out"]
    for target, words in (
        (None, r"'out' .cgroup_skb. attaches to a cgroup, not to None"),
        ("/no/such", "/no/such is not a cgroup: No such file or directory"),
        (tmp_path, rf"attaches to a cgroup, and {tmp_path} is none"),
        ("/proc/self/ns/net", "attaches to a cgroup, and /proc/self/ns/net is none"),
        (3.5, "attaches to a cgroup, not to 3.5"),
    ):
        with pytest.raises(AttachError, match=words):
            program.attach(target)
    with pytest.raises(
        AttachError, match="cgroup mode 'native' is none of 'exclusive', 'override', 'multi'"
    ):
        program.attach(tmp_path, mode="native")
    assert not program.auto_attachable
