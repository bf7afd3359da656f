from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_bpf.errors import PlaceError, UnknownNameError
from pytest_bpf.kernel.sys import worker
from pytest_bpf.netns import Namespace, pair
from tests.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

OWN_NETWORK = "/proc/thread-self/ns/net"


def open_descriptors() -> dict[str, str]:
    found = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found[descriptor.name] = str(descriptor.readlink())
    return found


def members(inode: int) -> list[str]:
    """The tasks of this machine that are in a network namespace."""
    found = []
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        with suppress(OSError):
            if str((task / "ns/net").readlink()) == f"net:[{inode}]":
                found.append(str(task))
    return found


def is_empty(inode: int) -> bool:
    """Look until nothing is in the namespace: a joined thread has not quite left the kernel."""
    deadline = time.monotonic() + 120
    while members(inode) and time.monotonic() < deadline:
        pass
    return not members(inode)


def test_a_function_runs_inside_with_its_arguments_and_result() -> None:
    with Namespace("alone") as namespace:
        result = namespace.run(lambda *args, **kwargs: (args, kwargs), 1, two=2)
        assert result == ((1,), {"two": 2})
        assert namespace.run(lambda: Path(OWN_NETWORK).stat().st_ino) == namespace.inode
        assert Path(OWN_NETWORK).stat().st_ino != namespace.inode
        assert os.fstat(namespace.fileno()).st_ino == namespace.inode


def test_exceptions_come_back_as_they_are() -> None:
    class OwnError(Exception):
        pass

    raised = OwnError("mine")

    def fail() -> None:
        raise raised

    with Namespace() as namespace:
        with pytest.raises(OwnError) as caught:
            namespace.run(fail)
        assert caught.value is raised
        with pytest.raises(SystemExit):
            namespace.run(sys.exit, 3)
        assert namespace.run(int, "7") == 7


def test_a_job_may_run_another_in_the_same_namespace() -> None:
    with Namespace() as namespace:
        assert namespace.run(lambda: namespace.run(lambda: namespace.run(threading.get_ident))) == (
            namespace.run(threading.get_ident)
        )


def test_nothing_of_a_job_is_kept() -> None:
    class Thing:
        pass

    with Namespace() as namespace:
        thing = Thing()
        gone = weakref.ref(thing)
        namespace.run(lambda kept: None, thing)  # noqa: ARG005 - it is kept by nobody
        del thing
        assert namespace.run(gone) is None


def test_jobs_of_two_threads_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=120)
    with Namespace() as namespace, ThreadPoolExecutor(2) as threads:
        inodes = [
            threads.submit(namespace.run, lambda: (both.wait(), Path(OWN_NETWORK).stat().st_ino)[1])
            for _ in range(2)
        ]
        assert [inode.result() for inode in inodes] == [namespace.inode] * 2


def test_lo_is_up_and_addressed() -> None:
    with Namespace() as namespace:
        for family, address in (
            (socket.AF_INET, str(namespace.ipv4)),
            (socket.AF_INET6, str(namespace.ipv6)),
        ):
            with namespace.socket(family, socket.SOCK_DGRAM) as end:
                end.settimeout(5)
                end.bind((address, 0))
                end.sendto(b"round", end.getsockname())
                assert end.recv(100) == b"round"
        assert dict(namespace.interfaces) == {}
        with pytest.raises(PlaceError, match="'namespace' has no interface but lo"):
            _ = namespace.iface


def test_interfaces_are_those_there_are_now() -> None:
    with pair(interfaces=("wan", "lan")) as (left, right):
        wan = left.iface
        assert (wan.name, wan.ifindex, wan.namespace) == ("wan", 2, left)
        assert wan.mac != right.iface.mac
        assert (str(wan.ipv4), str(wan.ipv6)) == ("192.0.2.1/24", "2001:db8::1/64")
        assert left.popen(["ip", "link", "add", "own", "type", "bridge"]).wait(60) == 0
        assert list(left.interfaces) == ["wan", "own"]
        assert left.interfaces["own"].ipv4 is None
        with pytest.raises(UnknownNameError, match="'wna' here; did you mean 'wan'"):
            left.interfaces["wna"]


def test_a_process_runs_inside_and_dies_on_close() -> None:
    namespace = Namespace()
    with namespace.popen(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE) as quick:
        assert quick.communicate(timeout=60)[0] == f"net:[{namespace.inode}]\n".encode()
    child = namespace.popen(["sh", "-c", "sleep 1000 & echo; wait"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert len(members(namespace.inode)) > 2
    namespace.close()
    assert child.returncode == -signal.SIGKILL
    assert is_empty(namespace.inode)


def test_commands_are_words_that_exist() -> None:
    with Namespace() as namespace:
        with pytest.raises(PlaceError, match="no such command"):
            namespace.popen(["no-such-command-here"])
        with pytest.raises(PlaceError, match="list of words"):
            namespace.popen("ip a")


def test_nothing_runs_after_close() -> None:
    namespace = Namespace("gone")
    end = namespace.socket(type=socket.SOCK_DGRAM)
    namespace.close()
    namespace.close()
    with pytest.raises(PlaceError, match="namespace 'gone' is closed"):
        namespace.run(int)
    with pytest.raises(PlaceError, match="'gone' is closed"):
        namespace.fileno()
    assert end.fileno() >= 0
    end.close()


def test_the_other_end_of_a_cable_goes_with_a_closed_namespace() -> None:
    left, right = pair()
    with right.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.bind((0, 1))  # RTMGRP_LINK
        news.settimeout(30)
        left.close()
        while int.from_bytes(news.recv(65536)[4:6], sys.byteorder) != 17:  # RTM_DELLINK
            pass
        assert dict(right.interfaces) == {}
    right.close()


def test_a_forgotten_namespace_closes_itself() -> None:
    before = threading.active_count()
    inode = Namespace().inode
    assert is_empty(inode)
    assert threading.active_count() == before


def test_ctrl_c_ends_the_wait_and_leaves_the_namespace_usable() -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("Ctrl-C reaches the main thread only")
    main = threading.get_ident()
    interrupted, go_on = threading.Event(), threading.Event()

    def interrupt_once(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def stuck() -> None:
        while not interrupted.wait(0.02):  # a signal just before the wait does not end it
            signal.pthread_kill(main, signal.SIGINT)
        go_on.wait(120)

    before = signal.signal(signal.SIGINT, interrupt_once)
    try:
        with Namespace() as namespace:
            with pytest.raises(KeyboardInterrupt):
                namespace.run(stuck)
            assert namespace.run(lambda: Path(OWN_NETWORK).stat().st_ino) == namespace.inode
            go_on.set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_function_that_does_not_return_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 0.01)
    go_on, started = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        go_on.wait(120)

    namespace = Namespace("busy")
    caller = threading.Thread(target=namespace.run, args=(wait,), daemon=True)
    caller.start()
    assert started.wait(120)
    with pytest.raises(PlaceError, match="1 of the functions run in namespace 'busy'"):
        namespace.close()
    go_on.set()
    caller.join(120)
    assert not caller.is_alive()
    with pytest.raises(PlaceError, match="closed"):
        namespace.fileno()


def test_fifty_pairs_leak_nothing() -> None:
    pair().close()
    threads, descriptors = threading.active_count(), open_descriptors()
    inodes: list[int] = []
    for _ in range(50):
        with pair() as (left, right):
            inodes = [left.inode, right.inode]
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors
    assert all(is_empty(inode) for inode in inodes)


def test_a_killed_test_process_leaves_no_namespace_and_no_process() -> None:
    script = """
import sys, time
from pytest_bpf.netns import pair
left, right = pair()
child = left.popen(["sleep", "1000"])
print(left.inode, right.inode, child.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        left, right, child = map(int, process.stdout.readline().split())
        assert members(left)
        assert members(right)
        handle = os.pidfd_open(child)
        process.kill()
    dead, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    assert dead
    assert is_empty(left)
    assert is_empty(right)


def test_without_privilege_the_sentence_says_what_is_missing() -> None:
    script = "from pytest_bpf.netns import pair; pair()"
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-B", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "pytest_bpf.errors.PrivilegeError: a network namespace needs CAP_SYS_ADMIN, which this "
        "process (uid 65534) does not have; run as root"
    )


def test_without_privilege_a_skip_says_what_needs_none(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text("from pytest_bpf.netns import pair\ndef test_x(): pair()\n")
    tmp_path.chmod(0o755)
    words = ("-m", "pytest", "-rs", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(file))
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-B", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (
        "a network namespace needs CAP_SYS_ADMIN, which this process (uid 65534) does not have; "
        "run as root, or the tests in a machine (--bpf-kernel debian)"
    ) in done.stdout, done


def test_what_a_function_raises_is_raised_whatever_its_arguments_are() -> None:
    with Namespace("a") as namespace:
        with pytest.raises(OSError, match="Bad file descriptor"):
            namespace.run(os.close, 123456)
        with pytest.raises(ValueError, match="invalid literal"):
            namespace.run(int, "x", base=10)
