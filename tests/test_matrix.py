"""``--bpf-kernel``: whole sessions on several kernels in one saved machine; the table alone."""

from __future__ import annotations

import io
import platform
import re
import sys
import time
import xml.etree.ElementTree as ET
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from pytest_bpf.cache import open_cache
from pytest_bpf.compile import remote
from pytest_bpf.kernel.btf import vmlinux_h
from pytest_bpf.plugin.matrix import progress
from pytest_bpf.plugin.matrix.names import select, strip_kernel
from pytest_bpf.reports.matrix import matrix_table, nowhere, skip_reasons, verifier_table
from tests.sessions import run_with_machines

pytestmark = pytest.mark.xdist_group("machines")

TIMEOUT = 400

USERFAULTFD = {"x86_64": 323, "aarch64": 282}
"""``__NR_userfaultfd`` of <asm/unistd.h>."""

TWO = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int two(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""

COUNT = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
__u64 hits;
/* SALT */
SEC("kprobe/do_nanosleep") int count(void *ctx) { __sync_fetch_and_add(&hits, 1); return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_a_table_has_a_row_for_each_test_and_totals() -> None:
    outcomes = {
        ("a.py::test_x", "host"): "passed",
        ("a.py::test_x", "6.1"): "failed",
        ("a.py::test_y", "host"): "skipped",
    }
    assert matrix_table(outcomes, ["host", "6.1"]) == [
        "              host                 6.1",
        "a.py::test_x  passed               failed",
        "a.py::test_y  skipped              -",
        "total         1 passed, 1 skipped  1 failed",
    ]


def test_a_table_of_many_tests_has_a_row_for_each_file() -> None:
    outcomes = {(f"{file}.py::test_{n}", "6.1"): "passed" for file in "ab" for n in range(3)}
    outcomes["b.py::test_0", "6.1"] = "error"
    assert matrix_table(outcomes, ["6.1"], tests=5) == [
        "       6.1",
        "a.py   3 passed",
        "b.py   1 error, 2 passed",
        "total  1 error, 5 passed",
    ]


def test_what_the_verifier_counted_is_one_table_for_all_kernels() -> None:
    insns = {("a.c:p", "6.1"): {1200, 90}, ("a.c:p", "6.12"): {7}, ("b.c:q", "6.12"): {5}}
    assert verifier_table(insns, ["6.1", "6.12"]) == [
        "            6.1  6.12",
        "a.c:p  90-1,200     7",
        "b.c:q         -     5",
    ]
    rejected = {("b.c:q", "6.1"), ("a.c:p", "6.12")}
    assert verifier_table(insns, ["6.1", "6.12"], rejected)[1:] == [
        "a.c:p  90-1,200  7 rejected",
        "b.c:q  rejected           5",
    ]


LOOPS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int spins(struct xdp_md *ctx) { for (;;) asm volatile(""); return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_a_program_that_a_kernel_rejects_is_in_the_table_of_costs(session: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    session.makepyfile(f"def test_x(bpf): bpf.load({LOOPS!r}, name='loops')")
    result = run_with_machines(session, "--bpf-kernel", "host", "--bpf-costs", "--junitxml=j.xml")
    result.assert_outcomes(failed=1)
    section = "*bpf: instructions that the verifier processed, by kernel*"
    result.stdout.fnmatch_lines([section, "* host", "loops*:spins *rejected"])
    assert '<property name="bpf_rejected" value="loops' in (session.path / "j.xml").read_text()


def test_a_reason_to_skip_has_its_kernels() -> None:
    reasons = {"6.1": "lacks it", "6.6": "lacks it", "host": "busy"}
    assert skip_reasons(reasons) == ["6.1, 6.6: lacks it", "host: busy"]


def test_what_ran_nowhere_was_skipped_on_each() -> None:
    outcomes = {("x", "a"): "skipped", ("x", "b"): "passed", ("y", "a"): "skipped"}
    assert nowhere(outcomes) == ["y"]


@pytest.mark.parametrize(
    ("named", "plain"),
    [
        ("a.py::test_x[6.1]", "a.py::test_x"),
        ("a.py::test_x[1-6.1]", "a.py::test_x[1]"),
        ("a.py::T::test_x", "a.py::T::test_x"),
    ],
)
def test_the_kernel_is_taken_out_of_a_name(named: str, plain: str) -> None:
    assert strip_kernel(named, "6.1") == plain


def test_without_xdist_it_says_what_to_install(session: pytest.Pytester) -> None:
    result = run_with_machines(session, "-p", "no:xdist", "--bpf-kernel", "host")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-kernel needs pytest-xdist*pytest-bpf[[]vm[]]*"])


def test_without_xdists_other_plugin_it_runs(session: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    session.makepyfile("def test_x(): pass")
    result = run_with_machines(session, "-p", "no:xdist.looponfail", "--bpf-kernel", "host")
    result.assert_outcomes(passed=1)


def test_a_kernel_that_is_not_there_is_a_usage_error(session: pytest.Pytester) -> None:
    result = run_with_machines(session, "--bpf-kernel", "0.99")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-kernel: no kernel '0.99' in /boot or *"])


def test_kernels_from_the_configuration(session: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    session.makeini("[pytest]\nbpf_kernels = host\n")
    session.makepyfile("def test_x(): pass")
    result = run_with_machines(session, "-v", "-p", "no:randomly")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*PASSED*::test_x[[]host[]]*", "total * 1 passed"])


@pytest.mark.parametrize("written", ["[0]", "[0][host]", "[0-host]"])
@pytest.mark.parametrize("function", ["test_x", "TestX::test_x"])
def test_an_id_selects_its_test(session: pytest.Pytester, function: str, written: str) -> None:
    session.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", [0, 1])
        def test_x(number):
            pass

        class TestX:
            @pytest.mark.parametrize("number", [0, 1])
            def test_x(self, number):
                pass
        """
    )
    argument = f"test_an_id_selects_its_test.py::{function}{written}"
    result = run_with_machines(session, "-v", "--bpf-kernel", "host", argument)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*PASSED*::{function}[[]0-host[]]*"])
    collected = run_with_machines(session, "--collect-only", "-q", "--bpf-kernel", "host", argument)
    collected.stdout.fnmatch_lines([f"*::{function}[[]0-host[]]"])


@pytest.mark.parametrize(
    ("argument", "selected"),
    [
        ("a.py::test_x", ["a.py::test_x"]),
        ("a.py::test_x[1]", ["a.py::test_x[1-6.1.0]", "a.py::test_x[1-6.12.9]"]),
        ("a.py::test_x[1][6.12]", ["a.py::test_x[1-6.12.9]"]),
        ("a.py::test_x[1][6.1]", ["a.py::test_x[1-6.1.0]"]),
        ("a.py::test_x[6.12.9]", ["a.py::test_x[6.12.9]"]),
        ("a.py::test_x[6.12]", ["a.py::test_x[6.12-6.1.0]", "a.py::test_x[6.12-6.12.9]"]),
        ("a.py::test_x[a][b]", ["a.py::test_x[a][b-6.1.0]", "a.py::test_x[a][b-6.12.9]"]),
        ("a.py::test_x[1-6.1.0]", ["a.py::test_x[1-6.1.0]"]),
        ("folder[1]", ["folder[1]"]),
    ],
)
def test_what_an_id_selects_of_two_kernels(argument: str, selected: list[str]) -> None:
    kernels = ["6.1.0", "6.12.9"]
    assert select(argument, kernels, kernels) == selected
    each = [select(argument, [kernel], kernels) for kernel in kernels]
    assert set(chain(*each)) == set(selected)


def test_two_kernels_make_one_matrix(session: pytest.Pytester, release: str) -> None:
    session.makepyfile(
        f"""
        import os
        import pytest
        import unittest

        @pytest.mark.parametrize("number", [1, 2])
        def test_both(number):
            pass

        def test_there():
            if os.uname().release != {release!r}:
                pytest.skip("elsewhere")

        def test_nowhere():
            pytest.skip("lacking")

        def test_here(bpf_places):
            assert os.uname().release != {release!r}

        @pytest.mark.bpf_requires(kernel=">=99", map_type="arena")
        def test_newer():
            pass

        def test_program(bpf):
            bpf.load({TWO!r}, name="two")

        class TestOld(unittest.TestCase):
            def test_method(self):
                pass
        """
    )
    kernels = ("--bpf-kernel", "host", "--bpf-kernel", "debian")
    reports = ("--junitxml=j.xml", "--bpf-artifacts=kept", "--bpf-strict", "--bpf-costs")
    result = run_with_machines(session, *kernels, *reports)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=10, skipped=5, failed=1, errors=2)
    name = "test_two_kernels_make_one_matrix.py"
    lines = [re.sub(" +", " ", line) for line in result.outlines]
    wanted = [
        f" host {release}",
        f"{name}::test_both[1] passed passed",
        f"{name}::test_there skipped passed",
        f"{name}::test_nowhere skipped skipped",
        f"{name}::test_here passed failed",
        f"{name}::TestOld::test_method passed passed",
        "total 5 passed, 3 skipped 1 failed, 5 passed, 2 skipped",
        "ran on no kernel, skipped on each: 2",
        f" {name}::test_nowhere",
        f" host, {release}: lacking",
        "--bpf-strict: ran on no kernel: " + f"host, {release}: lacking",
    ]
    assert not set(wanted) - set(lines), result.outlines
    cases = ET.parse(session.path / "j.xml").findall(".//testcase")
    assert {f"test_both[1-{kernel}]" for kernel in ("host", release)} <= {
        case.attrib["name"] for case in cases
    }
    assert any(re.fullmatch(r".*two.*:two +\d+ +\d+", line) for line in result.outlines)
    result.stdout.fnmatch_lines(
        [f"    {release}: requires kernel >=99 *map type 'arena', which Linux has since 6.9"]
    )
    kept = session.path / "kept" / f"{name}-test_here[{release}]"
    assert f"Linux version {release}" in (kept / "console.txt").read_text()
    assert "test_here" in (kept / "report.txt").read_text()
    said = [case.findall(".//property[@name='bpf_kernel']") for case in cases]
    assert sorted({p.attrib["value"] for found in said for p in found}) == [release, "host"]


def test_a_panic_fails_its_test_and_the_rest_still_runs(
    session: pytest.Pytester, release: str
) -> None:
    session.makepyfile(
        """
        import signal

        def test_before(): pass

        def test_panics():
            with open("/proc/sysrq-trigger", "w") as trigger:
                trigger.write("c")
            signal.pause()

        def test_after(): pass
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"worker '{release}' crashed while running '*::test_panics[[]{release}[]]'",
            "*Kernel panic - not syncing: sysrq triggered crash",
            "*::test_before *passed",
            "*::test_panics *failed",
            "*::test_after *passed",
        ]
    )


ENDLESS = """
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
static long inner(__u32 index, void *context) { return 0; }
static long outer(__u32 index, void *context) { bpf_loop(1 << 23, inner, context, 0); return 0; }
SEC("xdp") int endless(struct xdp_md *packet)
{
    int local = 0;
    bpf_loop(1 << 23, outer, &local, 0);
    return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


CALLER = f"*bpf_prog_{'?' * 16}_[oe][un]*"
"""``outer`` or ``endless`` in a call trace: at its first instruction a function hides who calls."""


def test_a_hang_fails_its_test_and_the_rest_still_runs(
    session: pytest.Pytester, release: str
) -> None:
    """A program that does not let go of the CPU, and a task that nothing can wake."""
    session.makepyfile(
        f"""
        import ctypes, fcntl, mmap, os, struct, threading, time

        def test_takes_long():
            time.sleep(6)

        def test_endless_program(bpf):
            bpf.load({ENDLESS!r}, name="endless").programs["endless"].test_run(bytes(64))

        def test_waits_for_ever():
            libc = ctypes.CDLL(None)
            area = mmap.mmap(-1, mmap.PAGESIZE)
            address = ctypes.addressof(ctypes.c_char.from_buffer(area))
            faults = libc.syscall({USERFAULTFD[platform.machine()]}, os.O_CLOEXEC)
            fcntl.ioctl(faults, 0xC018AA3F, struct.pack("3Q", 0xAA, 0, 0))
            fcntl.ioctl(faults, 0xC020AA00, struct.pack("4Q", address, mmap.PAGESIZE, 1, 0))
            out, into = os.pipe()
            fault = (into, ctypes.c_void_p(address), 1)  # holds the pipe, waits for its page
            threading.Thread(target=libc.write, args=fault, daemon=True).start()
            time.sleep(0.5)
            os.write(into, b"x")

        def test_after(): pass
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian", "--bpf-hang-timeout", "4")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            f"worker '{release}' crashed while running '*::test_endless_program[[]{release}[]]'",
            "pytest-bpf: the virtual machine hangs: it gave no sign of life for 4 s; *",
            "*Kernel panic - not syncing: NMI: Not continuing",
            CALLER,
            "worker * crashed while running '*::test_waits_for_ever[[]*",
            "*INFO: task * blocked for more than 4 seconds.",
            "*pipe_write*",
            "*Kernel panic - not syncing: hung_task: blocked tasks",
            "*::test_takes_long *passed",
            "*::test_endless_program *failed",
            "*::test_after *passed",
        ]
    )


def test_a_machine_that_cannot_be_had_any_more_makes_errors(
    session: pytest.Pytester, release: str
) -> None:
    """When the first has died there is no qemu: its tests say so, those of the host still run."""
    session.makeconftest(
        """
        import os, shutil

        def pytest_testnodedown(error):
            if error:
                os.mkdir("bin")
                os.symlink(shutil.which("sh"), "bin/sh")
                os.environ["PATH"] = os.path.abspath("bin")
        """
    )
    session.makepyfile(
        f"""
        import os
        import pytest

        def test_dies():
            if os.uname().release == {release!r}:
                os._exit(1)

        @pytest.mark.bpf_requires(kernel=">=99")
        def test_lacking(): pass

        def test_after(): pass
        """
    )
    result = run_with_machines(
        session, "--bpf-kernel", "debian", "--bpf-kernel", "host", "-p", "no:randomly"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=2, failed=1, errors=2, skipped=1)
    result.stdout.fnmatch_lines([f"nowhere to run on {release}: there is no qemu-system-*"])
    assert not any("INTERNALERROR" in line for line in result.outlines)


def test_a_guest_knows_its_configuration_and_has_what_was_asked_for(
    session: pytest.Pytester, release: str
) -> None:
    session.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.bpf_requires(config={"CONFIG_BPF_JIT": "y"}, cpus=2)
        def test_configured():
            assert os.path.exists(f"/boot/config-{os.uname().release}")

        @pytest.mark.bpf_requires(config="CONFIG_FPROBE")
        def test_not_configured(): pass
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian", "--bpf-cpus=2", "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            f"bpf: pytest-bpf *, kernels {release} (--cpus=2)",
            "SKIPPED *requires CONFIG_FPROBE (it is not set)",
        ]
    )


LARGE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 60000000);
         __type(key, __u32); __type(value, __u64); } large SEC(".maps");
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
"""

LACKING = f"""
def test_before(): pass

def test_object(bpf):
    bpf.load({LARGE!r}, name="large")

def test_python():
    held = [bytearray(1 << 20) for _ in range(600)]

def test_after(): pass
"""


@pytest.mark.parametrize("lacking", ["object", "python"])
def test_a_test_that_lacks_memory_runs_on_a_larger_machine(
    session: pytest.Pytester, release: str, lacking: str
) -> None:
    """An object whose maps are too large, and a Python that its kernel kills."""
    other = {"object": "python", "python": "object"}[lacking]
    session.makepyfile(LACKING.replace(f"test_{other}", "_other"))
    options = ("--bpf-kernel", "debian", "--bpf-memory=512", "-p", "no:randomly")
    extra = ("--bpf-memory-max=1024", "--junitxml=j.xml")
    result = run_with_machines(session, *options, *extra)
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes() == {"passed": 3, "rerun": 1}
    cases = ET.parse(session.path / "j.xml").findall(".//testcase")
    assert [len(cases), *(len(case.findall("failure")) for case in cases)] == [3, 0, 0, 0]
    why = {"object": "*its maps would take 0.5 GB and *", "python": "*Out of memory: Killed *"}
    result.stdout.fnmatch_lines(
        [
            f"*::test_{lacking} *passed",
            f"a machine of {release} with 1024 MiB took the place of one with 512: {why[lacking]}",
        ]
    )


@pytest.mark.usefixtures("release")
def test_a_test_that_lacks_memory_says_so(session: pytest.Pytester) -> None:
    """Where no larger machine is allowed, or none that is large enough."""
    session.makepyfile(LACKING.replace("test_python", "_python"))
    for more in ([], ["--bpf-memory-max=600"]):
        result = run_with_machines(session, "--bpf-kernel", "debian", "--bpf-memory=512", *more)
        result.assert_outcomes(passed=2, failed=1)
        result.stdout.fnmatch_lines(
            ["*LoadError: *its maps would take 0.5 GB and *, or give the machine more memory (*"]
        )


def test_a_cpu_that_hangs_is_named_while_the_other_lives(
    session: pytest.Pytester, release: str
) -> None:
    session.makepyfile(
        f"""
        def test_endless_program(bpf):
            bpf.load({ENDLESS!r}, name="endless").programs["endless"].test_run(bytes(64))

        def test_after(): pass
        """
    )
    options = ("--bpf-kernel", "debian", "--bpf-cpus=2", "--bpf-hang-timeout", "6")
    result = run_with_machines(session, *options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"worker '{release}' crashed while running '*::test_endless_program[[]{release}[]]'",
            "*Kernel panic - not syncing: softlockup: hung tasks",
            CALLER,
        ]
    )


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--bpf-memory=100", "a machine has 512 to 1048576 MiB of memory, not 100"),
        ("--bpf-cpus=65", "a machine has 1 to 64 CPUs, not 65"),
        ("--bpf-cpus=0", "bpf_cpus must be at least 1, not 0"),
        ("--bpf-exact --bpf-cpus=2", "an exact machine has one CPU, not 2: *"),
        ("-o bpf_memory=1G", "bpf_memory must be a whole number, not '1G'"),
        ("-o bpf_memory_max=x", "bpf_memory_max must be a whole number, not 'x'"),
        ("--bpf-memory-max=1024", "bpf_memory_max must be more than the 1024 MiB that a *, not *"),
        ("--bpf-memory-max=2048 --dist=loadfile", "--bpf-memory-max goes with --dist load and *"),
    ],
)
@pytest.mark.usefixtures("release")
def test_a_machine_that_cannot_be_made(
    session: pytest.Pytester, option: str, sentence: str
) -> None:
    result = run_with_machines(session, "--bpf-kernel", "debian", *option.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{sentence}"])


OURS = """
def test_ours():
    assert setproctitle.WORD == "ours"
"""


def test_tests_that_found_no_machine_are_errors(session: pytest.Pytester, release: str) -> None:
    session.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("number", range(5))
        def test_dies(number):
            os._exit(1)
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian", "--max-worker-restart=0")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1, errors=4)
    result.stdout.fnmatch_lines([f"never ran: the workers of kernel {release} died too often"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no -P")
def test_modules_of_the_project_take_no_place_of_pythons(session: pytest.Pytester) -> None:
    session.makepyfile(secrets="raise RuntimeError(__name__)")
    session.makepyfile("def test_it(): pass")
    script = Path(sys.executable).with_name("pytest")  # -m would find them first, itself
    result = session.run(
        *("env", "PYTHONPATH=", script, "-p", "no:cacheprovider"),
        *("--bpf-kernel", "debian", "--import-mode=importlib"),
        timeout=TIMEOUT,
    )
    result.assert_outcomes(passed=1)


def test_a_worker_that_closes_its_streams_is_replaced(session: pytest.Pytester) -> None:
    session.makepyfile(
        """
        import os

        def test_closes(): os.closerange(3, 1000)
        def test_goes_on(): pass
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian")
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.usefixtures("release")
def test_a_session_that_ignores_sigterm_ends_its_machines(session: pytest.Pytester) -> None:
    """Nobody joins them: the session fails before."""
    session.makeconftest("def pytest_sessionstart(session): raise ValueError('boo')")
    session.makepyfile("def test_it(): pass")
    ignored = (
        "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
        "os.execv(sys.executable, [sys.executable, '-m', 'pytest', '--bpf-kernel', 'debian'])"
    )
    result = session.run(sys.executable, "-c", ignored, timeout=120)
    result.stdout.fnmatch_lines(["*ValueError: boo"])


def test_progress_is_shown_and_the_reason_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    output = [b"saving, ", b"booting, not saved\n", b"pytest-bpf: no", b" room\n"]
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        assert progress.show(output) == "no room"
    assert stream
    assert stream.getvalue() == "saving, booting, not saved\n"


def test_a_module_of_the_project_is_not_taken_for_one_that_is_not_installed(
    session: pytest.Pytester,
) -> None:
    """pytest-xdist imports this one where it is installed; a machine knows that it is not."""
    session.makepyfile(setproctitle="WORD = 'ours'", test_it="import setproctitle\n" + OURS)
    result = run_with_machines(session, "--bpf-kernel", "debian")
    result.assert_outcomes(passed=1)


def test_two_machines_share_the_tests(session: pytest.Pytester, release: str) -> None:
    session.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_x(number):
            print("worker", os.environ["PYTEST_XDIST_WORKER"])
        """
    )
    result = run_with_machines(session, "--bpf-kernel", "debian", "-n", "2", "-rA")
    result.assert_outcomes(passed=8)
    workers = {line.split()[1] for line in result.outlines if line.startswith("worker ")}
    assert workers == {release, f"{release}.1"}


@pytest.mark.usefixtures("release")
def test_the_host_compiles_for_the_guest(session: pytest.Pytester) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the program is attached to a function by its name on x86_64")
    session.makepyfile(
        f"""
        import time
        import pytest
        from pytest_bpf import CompileError

        TEXT = {COUNT.replace("SALT", str(time.time_ns()))!r}

        @pytest.fixture(autouse=True)
        def no_compiler_here(monkeypatch):
            from pytest_bpf.compile import build

            monkeypatch.delattr(build, "_compile")

        def test_text(bpf):
            built = bpf.compile(TEXT, name="count")
            assert not built.cached
            assert bpf.compile(TEXT, name="count").cached
            obj = bpf.load(TEXT, name="count")
            obj.attach()
            time.sleep(0.001)
            assert obj.globals["hits"] > 0

        def test_file_of_the_guest(bpf, tmp_path):
            path = tmp_path / "own.bpf.c"
            path.write_text(TEXT + "int own;")
            assert bpf.load(path).programs["count"]

        def test_file_of_the_host(bpf):
            assert bpf.load("shared.bpf.c").programs["count"]

        def test_wrong(bpf):
            with pytest.raises(CompileError, match="wrong.bpf.c:2: .*nonsense") as caught:
                bpf.load("int x;\\nnonsense text;\\n", name="wrong")
            assert "nonsense" in caught.value.output
        """
    )
    (session.path / "shared.bpf.c").write_text('#include "shared.h"\n')
    (session.path / "shared.h").write_text(COUNT)
    run_with_machines(session, "--bpf-kernel", "debian").assert_outcomes(passed=4)


def test_what_only_the_asking_process_has_is_left_to_it(tmp_path: Path) -> None:
    request: dict[str, Any] = {
        "source": str(tmp_path / "gone.bpf.c"),
        "content": b'#include "beside.h"\n',
        "name": None,
        "include_dirs": [],
        "defines": {},
        "flags": [],
        "compiler": None,
        "identity": "",
    }
    assert remote.answer(request) == {}
    assert remote.answer(request | {"include_dirs": [str(tmp_path / "none")]}) == {}


def test_types_are_of_the_asking_kernel() -> None:
    request: dict[str, Any] = {
        "source": '#include "vmlinux.h"\nint x;\n',
        "content": None,
        "name": None,
        "include_dirs": [],
        "defines": {},
        "flags": [],
        "compiler": None,
        "identity": f"{time.time_ns():016}-of-another-kernel",
    }
    assert remote.answer(request) == {"wanted": "btf"}
    refused = remote.answer(request | {"btf": b"not BTF"})
    assert refused["error"] == "UnavailableError"
    open_cache().path("btf", request["identity"][:16]).unlink()
    done = remote.answer(request | {"btf": vmlinux_h.RUNNING.read_bytes()})
    assert done["object"].startswith(b"\x7fELF")
    assert remote.answer(request)["cached"]
    open_cache().path("btf", request["identity"][:16]).unlink()


EXACT = """
SOURCE = '''
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int two(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
'''
def test_cost(bpf, bpf_measure):
    program = bpf.load(SOURCE).programs["two"]
    cost = bpf_measure(program, lambda: program.test_run(bytes(64), repeat=100))
    assert cost.unit == "instructions"
    assert cost.lower == cost.per_run == cost.upper
"""


@pytest.mark.usefixtures("release")
def test_exact_figures_by_one_option(session: pytest.Pytester) -> None:
    session.makepyfile(EXACT)
    run_with_machines(session, "--bpf-exact").assert_outcomes(passed=1)


def test_the_host_runs_natively_beside_an_exact_machine(
    session: pytest.Pytester, release: str
) -> None:
    session.makepyfile(
        f"""
        import os
        from pytest_bpf.kernel.sys.exact import is_exact

        def test_exact_there_alone():
            assert is_exact() == (os.uname().release == {release!r})
        """
    )
    result = run_with_machines(
        session, "--bpf-exact", "--bpf-kernel", "host", "--bpf-kernel", "debian"
    )
    result.assert_outcomes(passed=2)


def test_the_host_does_not_count(session: pytest.Pytester) -> None:
    session.makepyfile(EXACT)
    result = run_with_machines(session, "--bpf-exact", "--bpf-kernel", "host")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --bpf-exact counts instructions in a machine; the host *"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--bpf-kernel host --pdb", "--pdb needs a terminal to ask at, and standard input is none"),
        ("--bpf-kernel host --trace", "--trace needs a terminal to ask at, *"),
        ("--bpf-kernel host --bpf-shell", "--bpf-shell needs a terminal*"),
        ("--bpf-shell", "--bpf-shell needs a terminal, and standard input is none"),
        ("--bpf-kernel host --bpf-writable nowhere", "bpf_writable: *nowhere is no folder *"),
        (
            "--bpf-kernel host" + "".join(f" --bpf-writable {name}" for name in "abcde"),
            "bpf_writable: a machine has 4 writable folders at most, not 5: *",
        ),
    ],
)
def test_what_a_session_cannot_have(session: pytest.Pytester, options: str, sentence: str) -> None:
    for name in "abcde":
        session.mkdir(name)
    result = run_with_machines(session, *options.split())
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {sentence}"])


def test_a_breakpoint_of_a_worker_says_what_it_needs(session: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="no pytest-xdist; install pytest-bpf[vm]")
    session.makepyfile("def test_x(): breakpoint()")
    result = run_with_machines(session, "--bpf-kernel", "host")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["breakpoint() needs a terminal: *--bpf-kernel host --pdb"])
