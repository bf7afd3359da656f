"""What a machine and qemu say to each other, with a qemu that has no machine at all."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import UnavailableError
from pytest_bpf.vm import qemu
from pytest_bpf.vm.qmp import Qmp, QmpError

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIT = {"execute": "quit"}
NAMED = {"execute": "getfd", "arguments": {"fdname": "file"}}
CLOSED = {"execute": "closefd", "arguments": {"fdname": "file"}}


@contextmanager
def channel() -> Iterator[Qmp]:
    """A qemu that was just started, and is not up."""
    try:
        program = qemu.program()
    except UnavailableError as error:
        pytest.skip(str(error))
    ours, theirs = socket.socketpair()
    words = ["-nodefaults", "-display", "none", "-machine", "none"]
    words += ["-chardev", f"socket,fd={theirs.fileno()},id=qmp", "-mon", "chardev=qmp,mode=control"]
    with subprocess.Popen([program, *words], pass_fds=(theirs.fileno(),)) as process, ours:
        theirs.close()
        try:
            yield Qmp(ours)
        finally:
            process.kill()


def test_commands_are_given_before_qemu_is_up_with_their_descriptor() -> None:
    file = os.memfd_create("file")
    with channel() as qmp:
        qmp.begin(NAMED, CLOSED, QUIT, descriptor=file)  # closefd knows it: it has come
    os.close(file)


def test_what_qemu_refuses_is_said_in_its_words() -> None:
    file = os.memfd_create("file")
    with channel() as qmp, pytest.raises(QmpError, match="'other' not found"):
        qmp.begin(NAMED, {"execute": "closefd", "arguments": {"fdname": "other"}}, descriptor=file)
    os.close(file)


def test_the_end_of_qemu_is_no_answer() -> None:
    file = os.memfd_create("file")
    with channel() as qmp:
        qmp.begin(QUIT, descriptor=file)
        with pytest.raises(QmpError, match="qemu has ended"):
            qmp.wait_migrated()
        with pytest.raises(QmpError, match=r"qemu (does not listen|has ended)"):
            qmp.begin(QUIT, descriptor=file)
    os.close(file)
