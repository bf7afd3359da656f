"""The command line and the ini file: what can be chosen there; `settings` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.plugin.paths import words

if TYPE_CHECKING:
    import pytest

MACHINE = ("cpus", "memory", "hang_timeout")
"""What machines are made like: options of ``python -m pytest_bpf.vm`` by the same names."""

DEFAULT_BASELINE = "main"

KEEP = ("failed", "all", "none")
"""What ``--bpf-artifacts-keep`` takes."""

COV = ("auto", "on", "off")
"""What ``bpf_cov`` takes."""

COV_REPORTS = ("term", "lcov", "json", "html")
"""What ``--bpf-cov-report`` takes."""

ANNOTATE_REPORTS = ("html", "json", "callgrind", "speedscope")
"""What ``--bpf-annotate-report`` takes."""

STATES = ("on", "off")
"""What ``--bpf-state`` takes."""

REPORT_FORMATS = (
    *("json", "markdown", "html", "github", "gitlab"),
    *("benchmark", "benchmark-bigger", "bencher", "veristat"),
)

STDOUT = Path("-")
"""The file of a report that is a part of pytest's own output."""


def add(parser: pytest.Parser) -> None:
    """Add the options, one group "bpf", each with its ini key."""
    group = parser.getgroup("bpf", "eBPF programs (pytest-bpf)")
    group.addoption(
        "--bpf-cc",
        metavar="COMPILER",
        help="Compiler for BPF sources: a path, a name on PATH, or 'zig' for the ziglang wheel. "
        "(default: ini bpf_cc, $PYTEST_BPF_CC, then the newest clang, then ziglang)",
    )
    group.addoption(
        "--bpf-libbpf",
        metavar="PATH",
        help="Another libbpf than the system's: libbpf.so.1, or the folder that has it. "
        "(default: ini bpf_libbpf, $PYTEST_BPF_LIBBPF, then the system's)",
    )
    group.addoption(
        "--bpf-cache-dir",
        metavar="DIR",
        help="Where compiled objects are kept. (default: ini bpf_cache_dir, $PYTEST_BPF_CACHE, "
        "then ~/.cache/pytest-bpf)",
    )
    group.addoption(
        "--bpf-strict",
        action="store_true",
        default=None,
        help="Fail tests for what the environment cannot do, instead of skipping them, and for "
        "what they leak, instead of warning.",
    )
    group.addoption(
        "--bpf-lint",
        action="store_true",
        default=None,
        help="Show what the lint rules find in the objects that tests compile.",
    )
    group.addoption(
        "--bpf-costs",
        action="store_true",
        default=None,
        help="Show, for each program that was loaded, verifier instructions, size and time per "
        "run. The kernel's statistics are on while a test has objects loaded.",
    )
    _add_artifacts(group, parser)
    _add_coverage(group, parser)
    group.addoption(
        "--bpf-kernel",
        action="append",
        metavar="KERNEL",
        help="Run the tests on this kernel, in a virtual machine: 'debian', 'debian:6.12', a "
        "version, a path, a .deb, 'oci:REGISTRY/IMAGE:TAG', or 'host' for the running one; or on "
        "another host, ssh=HOST or socket=HOST:PORT. May be given several times; needs "
        "pytest-bpf[vm].",
    )
    group.addoption(
        "--bpf-kernel-may-fail",
        action="append",
        metavar="KERNEL",
        help="Run the tests on this kernel, too, if it is to be had; what fails there does not "
        "fail the session. May be given several times.",
    )
    group.addoption(
        "--bpf-exact",
        action="store_true",
        default=None,
        help="Run the tests in a machine whose time is a count of instructions, so that costs are "
        "the same every time. The kernel is that of --bpf-kernel, else 'debian'.",
    )
    group.addoption(
        "--bpf-claims",
        metavar="FILE",
        help="Write what became of the tests' claims (marker bpf_claim) to a Markdown file.",
    )
    _add_size(parser, group)
    group.addoption(
        "--bpf-hang-timeout",
        type=int,
        metavar="SECONDS",
        help="A machine that gives no sign of life for so long hangs, and fails its test; a test "
        "may take as long as it likes. 0 is never. (default: ini bpf_hang_timeout, then 60)",
    )
    group.addoption(
        "--bpf-writable",
        action="append",
        metavar="DIR",
        help="A folder in which files stay that tests write in a machine of --bpf-kernel; anything "
        "else that they write goes with the machine. May be given several times.",
    )
    group.addoption(
        "--bpf-shell",
        action="store_true",
        help="When a test fails, start a shell where it stopped: in its machine with --bpf-kernel.",
    )
    group.addoption(
        "--bpf-console",
        action="store_true",
        help="Show what the kernel of --bpf-kernel prints on its console, while the tests run.",
    )
    group.addoption(
        "--bpf-budget",
        action="append",
        metavar="LIMIT",
        help="A limit for all tests, where it is measured: 'run_time=150ns', 'cpu=2%%, 5%%' "
        "(target, alarm), or a profile, 'guide' or 'agent'. May be given several times.",
    )
    group.addoption(
        "--bpf-baseline",
        metavar="NAME|FILE",
        help="Compare with a baseline: bpf-baselines/NAME.json in the root directory, or a file.",
    )
    group.addoption(
        "--bpf-against",
        metavar="REVISION|DIR",
        help="Compare with the BPF sources of a git revision, or of another checkout of the root "
        "directory: tests that measure run with these and with today's, in turn.",
    )
    group.addoption(
        "--bpf-save-baseline",
        nargs="?",
        const=DEFAULT_BASELINE,
        metavar="NAME|FILE",
        help=f"Save what was measured as a baseline. (default: {DEFAULT_BASELINE})",
    )
    group.addoption(
        "--bpf-update-baseline",
        action="store_true",
        help="Accept what changed: put it into the baseline, and show it.",
    )
    group.addoption(
        "--bpf-require-baseline",
        action="store_true",
        default=None,
        help="Fail tests whose figures are in no baseline, or in that of another machine.",
    )
    group.addoption(
        "--bpf-report",
        action="append",
        metavar="FORMAT:FILE",
        help=f"Write a report: {', '.join(REPORT_FORMATS)}. May be given several times.",
    )
    parser.addini(
        "bpf_c_tests",
        type="linelist",
        default=[],
        help="Files with tests in C besides *.test.bpf.c, as patterns below pytest's root "
        "directory: tests/*.bpf.c",
    )
    parser.addini("bpf_writable", "Folders, as --bpf-writable.", type="linelist", default=[])
    parser.addini("bpf_budget", "Limits for all tests, one a line.", type="linelist", default=[])
    parser.addini("bpf_baseline", "As --bpf-baseline.", default="")
    parser.addini("bpf_allowed", "Changes from a baseline: 'run_time: 10%'.", type="linelist")
    parser.addini("bpf_require_baseline", "As --bpf-require-baseline.", type="bool", default=False)
    parser.addini("bpf_reports", "Reports, as --bpf-report, one a line.", type="linelist")
    parser.addini("bpf_cc", "Compiler for BPF sources, as --bpf-cc.", default="")
    parser.addini("bpf_libbpf", "Another libbpf, as --bpf-libbpf.", default="")
    parser.addini("bpf_cflags", "Further compiler flags.", type="args", default=[])
    parser.addini("bpf_include_dirs", "Further folders of headers.", type="paths", default=[])
    parser.addini("bpf_defines", "Macros, one NAME or NAME=VALUE a line.", type="linelist")
    parser.addini(
        "bpf_build_command",
        "The project's own command for the object of a source, as 'make {object}', run in pytest's "
        "root directory. {source}, {dir}, {name} and {object} are filled in.",
        default="",
    )
    parser.addini(
        "bpf_build_object", "What bpf_build_command makes: 'build/{name}.bpf.o'.", default=""
    )
    parser.addini(
        "bpf_compile_commands", "A compile_commands.json with the sources' flags.", default=""
    )
    parser.addini("bpf_cache_dir", "Where compiled objects are kept.", default="")
    parser.addini("bpf_strict", "As --bpf-strict.", type="bool", default=False)
    parser.addini("bpf_lint", "As --bpf-lint.", type="bool", default=False)
    parser.addini("bpf_costs", "As --bpf-costs.", type="bool", default=False)
    parser.addini("bpf_exact", "As --bpf-exact.", type="bool", default=False)
    parser.addini("bpf_kernels", "Kernels, as --bpf-kernel.", type="args", default=[])
    parser.addini(
        "bpf_kernels_may_fail", "Kernels, as --bpf-kernel-may-fail.", type="args", default=[]
    )


def _add_size(parser: pytest.Parser, group: pytest.OptionGroup) -> None:
    """Add what machines are made like."""
    group.addoption(
        "--bpf-cpus",
        type=int,
        metavar="N",
        help="CPUs of a machine of --bpf-kernel. (default: ini bpf_cpus, then 1)",
    )
    group.addoption(
        "--bpf-memory",
        type=int,
        metavar="MIB",
        help="Memory of a machine of --bpf-kernel. (default: ini bpf_memory, then 1024)",
    )
    group.addoption(
        "--bpf-memory-max",
        type=int,
        metavar="MIB",
        help="Run a test that lacks memory again on a larger machine, up to this size. (default: "
        "ini bpf_memory_max, then never)",
    )
    for name in (*MACHINE, "memory_max"):
        parser.addini(f"bpf_{name}", f"As --bpf-{name.replace('_', '-')}.", default="")


def ask_for_kernels(config: pytest.Config) -> bool:
    """Say, before all settings can be read, whether the tests run in workers on kernels."""
    known = config.known_args_namespace
    asked = known.bpf_kernel or known.bpf_kernel_may_fail or known.bpf_exact
    return bool(asked or words(config, "bpf_kernels") or words(config, "bpf_kernels_may_fail"))


def _add_artifacts(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what is about failed tests."""
    group.addoption(
        "--bpf-state",
        choices=STATES,
        help="Whether the report of a failed test has the state of BPF at its end. The kernel's "
        "statistics are on while tests have objects loaded, unless they measure. (default: ini "
        "bpf_state, then on)",
    )
    group.addoption(
        "--bpf-trace",
        action="store_true",
        default=None,
        help="Put into each test's report what it did with BPF, in order: loads, links, traffic, "
        "map writes, and what ran meanwhile. -rA shows it of tests that pass.",
    )
    group.addoption(
        "--bpf-rerun-traced",
        action="store_true",
        default=None,
        help="Run a test that fails once more, alone, and put the path of that run into its "
        "report. The first run alone decides.",
    )
    group.addoption(
        "--bpf-artifacts",
        metavar="DIR",
        help="Keep what tells why a test failed, in a folder for each: its report, the state of "
        "BPF, maps, instructions, logs, objects. (default: ini bpf_artifacts, then none)",
    )
    group.addoption(
        "--bpf-artifacts-keep",
        choices=KEEP,
        help="Of which tests. (default: ini bpf_artifacts_keep, then failed)",
    )
    group.addoption(
        "--bpf-artifacts-capture",
        action="store_true",
        default=None,
        help="Capture what passes the interfaces of tests' namespaces: the last packets are in the "
        "state of BPF, all of them in --bpf-artifacts. It slows tests with namespaces down.",
    )
    parser.addini("bpf_state", "As --bpf-state: on or off.", default="on")
    parser.addini("bpf_trace", "As --bpf-trace.", type="bool", default=False)
    parser.addini("bpf_rerun_traced", "As --bpf-rerun-traced.", type="bool", default=False)
    parser.addini("bpf_artifacts", "As --bpf-artifacts.", default="")
    parser.addini(
        "bpf_artifacts_capture", "As --bpf-artifacts-capture.", type="bool", default=False
    )
    parser.addini("bpf_artifacts_keep", "As --bpf-artifacts-keep.", default="failed")


def _add_coverage(group: pytest.OptionGroup, parser: pytest.Parser) -> None:
    """Add what is about lines of C."""
    group.addoption(
        "--bpf-cov",
        action="store_const",
        const="on",
        help="Count the lines and branches of C that run. (default: ini bpf_cov: on, off, or auto, "
        "which is on with pytest-cov's --cov)",
    )
    group.addoption(
        "--bpf-cov-report",
        action="append",
        metavar="FORMAT[:FILE]",
        help="Report the lines of C with their counts: term, lcov:FILE, json:FILE, html:FILE. May "
        "be given several times.",
    )
    group.addoption(
        "--bpf-cov-apart",
        action="store_true",
        default=None,
        help="In the reports of --bpf-cov-report, tell apart what was compiled of one source with "
        "other defines or flags. (default: ini bpf_cov_apart, then one row for a source)",
    )
    group.addoption(
        "--bpf-annotate",
        action="store_true",
        default=None,
        help="Show the lines of C that ran with what they cost in machine instructions; needs "
        "pytest-bpf[disasm] and x86-64.",
    )
    group.addoption(
        "--bpf-annotate-report",
        action="append",
        metavar="FORMAT:FILE",
        help="Do that, and write it: html:FILE, json:FILE, callgrind:FILE (KCachegrind), "
        "speedscope:FILE. May be given several times.",
    )
    parser.addini("bpf_cov_apart", "As --bpf-cov-apart.", type="bool", default=False)
    parser.addini("bpf_cov", "As --bpf-cov: auto, on or off.", default="auto")
    parser.addini("bpf_cov_reports", "As --bpf-cov-report, one a line.", type="linelist")


def add_markers(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line(
        "markers",
        "bpf_requires(kernel, program_type, map_type, attach, helper, kfunc, btf, btf_type, "
        "config, libbpf, cpus, exact): skip the test, saying what is missing, where the "
        "environment does not have all of these.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_claim(says, row, verdict): what is claimed, and whether it 'holds', 'holds in part' "
        "or is 'refuted'; the test says by the fixture bpf_claim what it found.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_budget(profile, program=NAME, map=NAME, METRIC=LIMIT...): fail the test when what it "
        "measures, or what its programs cost meanwhile, breaks a limit: run_time='150ns', "
        "cpu=('2%', '5%') (target, alarm).",
    )
