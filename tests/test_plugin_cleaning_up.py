"""Whatever ends a run, nothing stays: Ctrl-C, SIGKILL, parallel runs."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpf.cgroup.cgroupfs import leftovers
from pytest_bpf.kernel.sys.names import is_stale

HOLDING = """
    import os, signal, subprocess
    def test_hold(bpf, bpf_netns_pair, bpf_cgroup, bpf_pins):
        left, right = bpf_netns_pair
        held = ["sh", "-c", "echo; exec sleep 1000"]
        child, inside = (place.popen(held, stdout=subprocess.PIPE) for place in (bpf_cgroup, left))
        assert child.stdout.readline() and inside.stdout.readline()  # they run, and die with us
        print("READY", bpf_cgroup.path, bpf_pins, child.pid, inside.pid, flush=True)
        signal.pause()
"""


def start(pytester: pytest.Pytester) -> tuple[subprocess.Popen[str], Path, Path, list[int]]:
    """Start a run that holds a cgroup, namespaces, pins and two processes; return those."""
    pytester.makepyfile(HOLDING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-s"]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "READY" in line:
            _, cgroup, pins, *pids = line[line.index("READY") :].split()
            return process, Path(cgroup), Path(pins), [int(pid) for pid in pids]
    pytest.fail("the run ended before it was ready")


def gone(pid: int, timeout: float = 120) -> bool:
    """Wait until a process that is not our child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], timeout)[0])
    finally:
        os.close(handle)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_an_interruption_nothing_is_left(
    pytester: pytest.Pytester, ending: signal.Signals
) -> None:
    process, cgroup, pins, pids = start(pytester)
    process.send_signal(ending)
    process.communicate(timeout=120)
    assert all(map(gone, pids))
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert not cgroup.exists()
    assert not pins.exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_in_a_finalizer_is_not_lost(
    pytester: pytest.Pytester, ending: signal.Signals
) -> None:
    pytester.makepyfile(f"""
        import signal, weakref

        class Thing:
            pass

        def test_it(bpf, bpf_pins):
            print("PINS", bpf_pins, flush=True)
            thing = Thing()
            weakref.finalize(thing, signal.raise_signal, {ending.value})
            del thing
            signal.pause()
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-s", timeout=300)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    [line] = [line for line in result.outlines if "PINS " in line]
    assert not Path(line.partition("PINS ")[2]).exists()


def test_a_signal_for_a_fork_ends_that_fork(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import os, signal

        def test_it(bpf):
            ready, started = os.pipe()
            pid = os.fork()
            if not pid:
                try:
                    os.write(started, b"1")
                    while True:
                        signal.pause()
                except BaseException:
                    os._exit(3)
            os.read(ready, 1)
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    """)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_what_a_killed_run_left_is_swept_by_the_next(pytester: pytest.Pytester) -> None:
    process, cgroup, pins, pids = start(pytester)
    process.kill()
    process.communicate(timeout=120)
    assert gone(pids[1])
    assert cgroup.exists()
    pytester.makepyfile("def test_next(bpf): pass")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert not cgroup.exists()
    assert not pins.exists()
    assert gone(pids[0])


def test_a_living_run_is_not_swept(pytester: pytest.Pytester) -> None:
    process, cgroup, pins, pids = start(pytester)
    try:
        pytester.makepyfile("def test_other(bpf): pass")
        pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
        assert cgroup.exists()
        assert pins.exists()
        assert Path(f"/proc/{pids[0]}").exists()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)


def test_parallel_workers_do_not_collide(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        @pytest.mark.parametrize("number", range(12))
        def test_all_at_once(bpf_places, bpf_netns_pair, bpf_cgroup, bpf_pins, number):
            left, right = bpf_netns_pair
            assert left.traffic.udp(to=right, count=10).received == 10
            assert bpf_cgroup.run(lambda: str(number)) == str(number)
    """)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "4")
    result.assert_outcomes(passed=12)
    assert list(leftovers(is_stale)) == []
