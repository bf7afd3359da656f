"""A machine that waits at a socket for its command, and who joins it; on Debian's stock kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from pytest_bpf.vm import join, waiting
from tests.test_vm_run import WAITING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

pytestmark = [pytest.mark.xdist_group("machines"), pytest.mark.usefixtures("kernel")]

TIMEOUT = 120
ITSELF = ["env", "WHERE=by itself", "sh", "-c", 'shift; exec "$@"', "sh", "--"]
"""Stands for the command of a machine of its own."""


@contextmanager
def machine(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine that waits in ``folder``, with its saved state there."""
    command = [sys.executable, "-m", "pytest_bpf.vm", "--kernel", "debian", *options]
    meeting = [str(folder / "m.socket"), str(folder / "m.log")]
    with subprocess.Popen([*command, "--wait-at", *meeting], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read() == waiting.SAVED
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def joining(folder: Path, *command: str) -> list[str]:
    return [sys.executable, "-IS", join.__file__, str(folder / "m.socket"), *ITSELF, *command]


def test_a_command_has_the_streams_the_folder_and_the_variables_of_who_joins(
    tmp_path: Path, kernel: Kernel
) -> None:
    folder = tmp_path / ("a" * 120)  # longer than the name of a socket may be
    folder.mkdir()
    code = (
        "import os, sys; print(os.uname().release, os.getcwd(), os.environ['BPF_GIVEN'],"
        "os.environ.get('WHERE'), sys.stdin.read()); print('wrong', file=sys.stderr); sys.exit(7)"
    )
    with machine(folder) as process:
        done = subprocess.run(
            joining(folder, sys.executable, "-c", code),
            cwd=folder,
            env={**os.environ, "BPF_GIVEN": "yes"},
            input=b"read",
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.stdout.decode().strip() == f"{kernel.release} {folder} yes None read"
        assert (done.stderr, done.returncode) == (b"", 7)
        assert (folder / "m.log").read_text() == "wrong\n"
        assert process.wait(TIMEOUT) is not None
    assert [file.name for file in folder.iterdir()] == ["m.log"]


def test_the_second_who_joins_runs_its_command_by_itself(tmp_path: Path, kernel: Kernel) -> None:
    command = ["sh", "-c", 'uname -r; echo "$WHERE"']
    with machine(tmp_path):
        first, second = (
            subprocess.check_output(joining(tmp_path, *command), text=True, timeout=TIMEOUT)
            for _ in range(2)
        )
    assert first.split("\n") == [kernel.release, "", ""]
    assert second.split("\n") == [os.uname().release, "by itself", ""]


def test_who_has_another_python_path_runs_its_command_by_itself(tmp_path: Path) -> None:
    with machine(tmp_path) as process:
        said = subprocess.check_output(
            joining(tmp_path, "sh", "-c", 'echo "$WHERE"'),
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            timeout=TIMEOUT,
        )
        assert said == b"by itself\n"
        assert process.wait(TIMEOUT) == 0


def test_a_machine_that_ended_before_is_not_missed(tmp_path: Path) -> None:
    with machine(tmp_path) as process:
        process.kill()
        process.wait(TIMEOUT)
        command = joining(tmp_path, "sh", "-c", 'echo "$WHERE"')
        assert subprocess.check_output(command, timeout=TIMEOUT) == b"by itself\n"


def test_where_no_socket_can_be_made_a_machine_is_only_saved(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest_bpf.vm", "--kernel", "debian"]
    place = "/proc/m.socket"  # as on a file system without sockets
    done = subprocess.run(
        [*command, "--wait-at", place, str(tmp_path / "m.log")],
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (waiting.SAVED, b"", 0)


@contextmanager
def joined(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs for ever in the machine that waits in ``folder``."""
    command = joining(folder, sys.executable, "-c", WAITING)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


def test_a_signal_goes_to_the_command(tmp_path: Path) -> None:
    with machine(tmp_path), joined(tmp_path) as command:
        command.send_signal(signal.SIGINT)
        assert command.wait(TIMEOUT) == 128 + signal.SIGINT


def test_the_machine_ends_with_who_joined(tmp_path: Path) -> None:
    with machine(tmp_path) as process, joined(tmp_path) as command:
        (qemu,) = psutil.Process(process.pid).children()
        command.kill()
        assert process.wait(TIMEOUT) == join.FAILED
        qemu.wait(TIMEOUT)


def test_who_joined_ends_with_the_machine(tmp_path: Path) -> None:
    with machine(tmp_path) as process, joined(tmp_path) as command:
        process.kill()
        assert command.wait(TIMEOUT) == join.FAILED


def test_a_machine_that_nobody_joins_is_ended_by_a_signal(tmp_path: Path) -> None:
    with machine(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
    assert not (tmp_path / "m.socket").exists()


def test_a_child_that_ends_as_its_parent_would_ends_no_machine(tmp_path: Path) -> None:
    code = "import os, sys; p = os.fork(); p or sys.exit(9); os.waitpid(p, 0); print('on')"
    with machine(tmp_path):
        command = joining(tmp_path, sys.executable, "-c", code)
        assert subprocess.check_output(command, timeout=TIMEOUT) == b"on\n"
