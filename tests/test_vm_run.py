"""Commands in a real machine. The first test saves one, once; the others restore it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_bpf.kernels import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pytest_bpf.kernels.kernel import Kernel

TIMEOUT = 400
"""Seconds; saving under emulation on a busy machine takes a minute."""

pytestmark = pytest.mark.xdist_group("machines")


def wrapped(command: Sequence[str], *options: str) -> list[str]:
    return [sys.executable, "-m", "pytest_bpf.vm", "--kernel", "debian", *options, "--", *command]


def run(
    *command: str, options: Sequence[str] = (), **given: Any
) -> subprocess.CompletedProcess[Any]:
    given = {"capture_output": True, "timeout": TIMEOUT, "stdin": subprocess.DEVNULL} | given
    if "input" in given:
        del given["stdin"]
    return subprocess.run(wrapped(command, *options), check=False, **given)


def python(code: str, **given: Any) -> subprocess.CompletedProcess[Any]:
    return run(sys.executable, "-c", code, **given)


WAITING = """\
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("up", flush=True)
signal.pause()
"""
"""Ends by a signal at whatever moment; a shell would keep one until its next command is over."""


@pytest.fixture
def running(kernel: Kernel) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """A command that would run for ever, and the qemu it runs in."""
    del kernel
    command = wrapped([sys.executable, "-c", WAITING])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stdout.readline() == b"up\n"
        (machine,) = psutil.Process(wrapper.pid).children()
        yield wrapper, machine
        wrapper.kill()


def test_the_kernel_is_the_guests(kernel: Kernel) -> None:
    done = run("uname", "-r", text=True)
    assert done.stdout == f"{kernel.release}\n", done.stderr
    assert done.returncode == 0
    assert kernel.release != platform.release()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        ([sys.executable, "-c", "import sys; sys.exit(9)"], 9),
        ([sys.executable, "-c", "1/0"], 1),
        ([sys.executable, "-c", "import sys; sys.exit(-1)"], 255),
        ([sys.executable, "-c", "import os, sys; os.closerange(3, 1000); sys.exit(7)"], 7),
        ([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], 137),
        (["no-such-command"], 127),
    ],
)
def test_exit_statuses_come_back(command: list[str], code: int) -> None:
    assert run(*command).returncode == code


@pytest.mark.usefixtures("kernel")
def test_streams_carry_any_bytes_both_ways() -> None:
    data = os.urandom(1 << 20) + bytes(range(256)) * 8 + b"\r\n\x03\x04\x1a"
    code = (
        "import sys; data = sys.stdin.buffer.read(); "
        "sys.stdout.buffer.write(data); sys.stderr.buffer.write(data[::-1])"
    )
    done = python(code, input=data)
    assert done.stdout == data
    assert done.stderr == data[::-1]


CLOSED = "import os; os.write(1, b'last'); os.closerange(1, 1000); os.read(0, 1)"


@pytest.mark.usefixtures("kernel")
def test_a_command_that_closes_its_output_lives_on() -> None:
    """Who waits for the end of its output, as execnet does, does not wait for its own."""
    command = wrapped([sys.executable, "-c", CLOSED])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read() == b"last"
        assert process.poll() is None
        process.communicate(b"\n", timeout=TIMEOUT)
    assert process.returncode == 0


@pytest.mark.usefixtures("kernel")
def test_other_programs_see_ordinary_pipes() -> None:
    data = os.urandom(300_000)
    done = run("sh", "-c", "cat; echo to-stderr > /dev/stderr", input=data)
    assert done.stdout == data
    assert done.stderr == b"to-stderr\n"


@pytest.mark.usefixtures("kernel")
def test_a_reader_that_leaves_ends_the_writer() -> None:
    with subprocess.Popen(
        wrapped(["sh", "-c", "yes; echo over >&2"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as wrapper:
        assert wrapper.stdout is not None
        assert wrapper.stderr is not None
        assert wrapper.stdout.readline() == b"y\n"
        wrapper.stdout.close()
        assert wrapper.stderr.read().endswith(b"over\n")
        assert wrapper.wait(TIMEOUT) == 0


@pytest.mark.usefixtures("kernel")
def test_python_is_as_if_started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'beside'\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys, beside\n"
        "print(json.dumps([sys.argv, os.getcwd(), os.environ['MARK'], sys.path[0], beside.WORD, "
        "__name__, sys.executable, sys.stdin.read(), sys.stdout.isatty()]))\n"
    )
    monkeypatch.setenv("MARK", "ö")
    monkeypatch.setenv("PYTEST_BPF_PASS_ENV", "MARK")
    here = subprocess.run(
        [sys.executable, "script.py", "a b"], cwd=tmp_path, input=b"in", stdout=-1, check=True
    )
    there = run(sys.executable, "script.py", "a b", cwd=tmp_path, input=b"in")
    assert json.loads(there.stdout) == json.loads(here.stdout)


@pytest.mark.usefixtures("kernel")
def test_pytest_runs_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os\n"
        "def test_kernel(tmp_path):\n    assert os.uname().release == '0'\n"
        "def test_passes(): pass\n"
    )
    done = run(sys.executable, "-m", "pytest", "-Werror", cwd=tmp_path, text=True)
    assert "1 failed, 1 passed in" in done.stdout
    assert f"assert '{lookup.find('debian')}' == '0'" in done.stdout
    assert done.stderr == ""
    assert done.returncode == 1
    assert not (tmp_path / ".pytest_cache").exists()


@pytest.mark.usefixtures("kernel")
def test_two_machines_at_once_share_no_randomness() -> None:
    code = (
        "import random, tempfile, uuid; print(uuid.uuid4(), random.random(), tempfile.mktemp(), "
        "open('/proc/sys/kernel/random/boot_id').read())\n"
        "import numpy.random; print(*numpy.random.randint(1 << 62, size=2))"
    )
    both = [
        subprocess.Popen(wrapped([sys.executable, "-c", code]), stdin=-3, stdout=-1, text=True)
        for _ in range(2)
    ]
    (first, _), (second, _) = (one.communicate(timeout=TIMEOUT) for one in both)
    assert len(first.split()) == len(second.split()) == 6
    assert not set(first.split()) & set(second.split())


@pytest.mark.usefixtures("kernel")
def test_hypothesis_tries_other_examples_each_time() -> None:
    pytest.importorskip("hypothesis")
    code = (
        "from hypothesis import given, settings, strategies\n"
        "found = []\n"
        "@settings(derandomize=False, database=None, max_examples=30)\n"
        "@given(strategies.integers())\n"
        "def look(number): found.append(number)\n"
        "look(); print(found)"
    )
    first, second = (python(code, text=True) for _ in range(2))
    assert first.stdout.count(",") >= 10, first.stderr
    assert first.stdout != second.stdout


@pytest.mark.usefixtures("kernel")
def test_modules_are_where_they_belong_for_every_user_there(kernel: Kernel) -> None:
    if kernel.modules is None:
        pytest.skip("this kernel has no modules")
    folder = f"/lib/modules/{kernel.release}"
    found = run("find", folder, "-name", "modules.builtin", text=True)
    assert found.stdout == f"{folder}/modules.builtin\n", found.stderr
    listed = run("setpriv", "--reuid=65534", "--clear-groups", "ls", folder, text=True)
    assert "modules.builtin" in listed.stdout.split(), listed.stderr


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stream_that_is_closed_is_empty(number: int) -> None:
    command = wrapped(["sh", "-c", "cat; echo out; echo err >&2; exit 3"])
    streams = {0: "stdin", 1: "stdout", 2: "stderr"}
    given: dict[str, Any] = dict.fromkeys(streams.values(), subprocess.PIPE)
    given[streams[number]] = None
    closing = ["sh", "-c", f'exec {number}<&-; exec "$@"', "sh", *command]
    with subprocess.Popen(closing, text=True, **given) as process:
        out, err = process.communicate(None if number == 0 else "in\n", timeout=TIMEOUT)
    assert process.returncode == 3
    assert out == (None if number == 1 else "out\n" if number == 0 else "in\nout\n")
    assert err == (None if number == 2 else "err\n")


@pytest.mark.usefixtures("kernel")
def test_the_guests_clock_is_right() -> None:
    done = subprocess.run(["date", "+%s"], capture_output=True, check=True)
    there = python("import time; print(int(time.time()))")
    assert 0 <= int(there.stdout) - int(done.stdout) < TIMEOUT


@pytest.mark.usefixtures("kernel")
def test_a_kprobe_program_counts_in_the_guest(tmp_path: Path) -> None:
    (tmp_path / "opens.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n#include <bpf/bpf_tracing.h>\n'
        'char LICENSE[] SEC("license") = "GPL";\nint hits, tgid;\n'
        'SEC("kprobe/do_sys_openat2") int BPF_KPROBE(count)\n'
        "{ if (bpf_get_current_pid_tgid() >> 32 == tgid) hits++; return 0; }\n"
    )
    (tmp_path / "count.py").write_text(
        "import os\nfrom pytest_bpf import Loader\n"
        "with Loader() as loader:\n"
        f"    obj = loader.load({str(tmp_path / 'opens.bpf.c')!r})\n"
        "    obj.globals['tgid'] = os.getpid()\n"
        "    obj.attach()\n"
        "    for _ in range(50): os.close(os.open('/dev/null', os.O_RDONLY))\n"
        "    print(obj.globals['hits'])\n"
    )
    done = run(sys.executable, str(tmp_path / "count.py"), text=True)
    assert done.stdout == "50\n", done.stderr


@pytest.mark.usefixtures("kernel")
def test_only_writable_folders_keep_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    script = "echo 1 > kept/file && mkdir kept/sub && echo 2 > lost && cat kept/file lost"
    done = run("sh", "-c", script, options=["--writable", "kept"], cwd=tmp_path)
    assert done.stdout == b"1\n2\n"
    assert (tmp_path / "kept/file").read_text() == "1\n"
    assert (tmp_path / "kept/sub").is_dir()
    assert not (tmp_path / "lost").exists()


@pytest.mark.usefixtures("kernel")
def test_a_writable_folder_must_exist(tmp_path: Path) -> None:
    done = run("true", options=["--writable", str(tmp_path / "absent")], text=True)
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "it is not a folder that you can write to" in done.stderr


def test_a_signal_reaches_the_command(
    running: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    wrapper, machine = running
    wrapper.send_signal(signal.SIGINT)
    assert wrapper.wait(TIMEOUT) == 128 + signal.SIGINT
    assert not psutil.pid_exists(machine.pid)


def test_no_machine_outlives_a_killed_command(
    running: tuple[subprocess.Popen[bytes], psutil.Process],
) -> None:
    wrapper, machine = running
    wrapper.kill()
    gone, alive = psutil.wait_procs([machine], timeout=TIMEOUT)
    assert gone
    assert not alive


@pytest.mark.usefixtures("kernel")
def test_a_panic_is_reported_with_the_kernels_words() -> None:
    done = run("sh", "-c", "echo c > /proc/sysrq-trigger", text=True)
    assert done.returncode == 125
    assert "the virtual machine ended by itself" in done.stderr
    assert "Kernel panic - not syncing: sysrq triggered crash" in done.stderr


@pytest.mark.usefixtures("kernel")
def test_an_exact_machine_counts() -> None:
    code = (
        "import time\n"
        "def work():\n    start = time.perf_counter_ns()\n    sum(range(500))\n"
        "    return time.perf_counter_ns() - start\n"
        "print(min(work() for _ in range(300)))  # some run is not interrupted"
    )
    first, second = (int(python(code, options=["--exact"]).stdout) for _ in range(2))
    assert first == pytest.approx(second, rel=0.01)
