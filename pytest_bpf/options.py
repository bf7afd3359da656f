"""The command line, the ini file, and what they say for this session."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """What the user chose; the command line goes before the ini file, that before the default."""

    cc: str = ""
    cflags: tuple[str, ...] = ()
    include_dirs: tuple[Path, ...] = ()
    defines: Mapping[str, str | int | None] = field(default_factory=dict)
    cache_dir: str = ""
    strict: bool = False
    costs: bool = False


MACHINE = ("cpus", "memory", "hang_timeout")
"""What machines are made like: options of ``python -m pytest_bpf.vm`` by the same names."""


@dataclass(frozen=True)
class Baselines:
    """Which baseline is compared with, which is written (None: none), and how.

    ``against`` is what sources it is compared with instead: a revision, or a folder.
    """

    compared: Path | None = None
    written: Path | None = None
    updating: bool = False
    required: bool = False
    against: str = ""


DEFAULT_BASELINE = "main"

BASELINES = "bpf-baselines"
"""The folder of baselines that are given by name, in pytest's root directory."""

REPORT_FORMATS = ("json", "markdown", "benchmark", "benchmark-bigger", "bencher", "veristat")

SETTINGS = pytest.StashKey[Settings]()


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
        "--bpf-costs",
        action="store_true",
        default=None,
        help="Show, for each program that was loaded, verifier instructions, size and time per "
        "run. The kernel's statistics are on while a test has objects loaded.",
    )
    group.addoption(
        "--bpf-kernel",
        action="append",
        metavar="KERNEL",
        help="Run the tests on this kernel, in a virtual machine: 'debian', a version, a path, or "
        "'host' for the running one; or on a real host, ssh=HOST or socket=HOST:PORT. May be given "
        "several times; needs pytest-bpf[vm].",
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
        type=Path,
        help="Write what became of the tests' claims (marker bpf_claim) to a Markdown file.",
    )
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
        "--bpf-hang-timeout",
        type=int,
        metavar="SECONDS",
        help="A machine that gives no sign of life for so long hangs, and fails its test; a test "
        "may take as long as it likes. 0 is never. (default: ini bpf_hang_timeout, then 60)",
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
    parser.addini("bpf_budget", "Limits for all tests, one a line.", type="linelist", default=[])
    parser.addini("bpf_baseline", "As --bpf-baseline.", default="")
    parser.addini("bpf_allowed", "Changes from a baseline: 'run_time: 10%'.", type="linelist")
    parser.addini("bpf_require_baseline", "As --bpf-require-baseline.", type="bool", default=False)
    parser.addini("bpf_reports", "Reports, as --bpf-report, one a line.", type="linelist")
    parser.addini("bpf_cc", "Compiler for BPF sources, as --bpf-cc.", default="")
    parser.addini("bpf_cflags", "Further compiler flags.", type="args", default=[])
    parser.addini("bpf_include_dirs", "Further folders of headers.", type="paths", default=[])
    parser.addini("bpf_defines", "Macros, one NAME or NAME=VALUE a line.", type="linelist")
    parser.addini("bpf_cache_dir", "Where compiled objects are kept.", default="")
    parser.addini("bpf_strict", "As --bpf-strict.", type="bool", default=False)
    parser.addini("bpf_costs", "As --bpf-costs.", type="bool", default=False)
    parser.addini("bpf_exact", "As --bpf-exact.", type="bool", default=False)
    parser.addini("bpf_kernels", "Kernels, as --bpf-kernel.", type="args", default=[])
    for name in MACHINE:
        parser.addini(f"bpf_{name}", f"As --bpf-{name.replace('_', '-')}.", default="")


def settings(config: pytest.Config) -> Settings:
    """Return what the user chose, read once."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = _read(config)
    return config.stash[SETTINGS]


def kernels(config: pytest.Config) -> list[str]:
    """Return the kernels that the tests are to run on, as written; none means the running one."""
    given: list[str] = config.getoption("bpf_kernel") or config.getini("bpf_kernels")
    return given or (["debian"] if exact(config) else [])


def machine(config: pytest.Config) -> list[str]:
    """Return what was chosen about machines, as words for ``python -m pytest_bpf.vm``.

    Raises `pytest.UsageError` for an ini value that is not a number.
    """
    words = ["--exact"] if exact(config) else []
    for name in MACHINE:
        given = config.getoption(f"bpf_{name}")
        value = config.getini(f"bpf_{name}") if given is None else given
        if value == "":
            continue
        if not str(value).isdecimal():
            raise pytest.UsageError(f"bpf_{name} must be a whole number, not {value!r}")
        words.append(f"--{name.replace('_', '-')}={value}")
    return words


def exact(config: pytest.Config) -> bool:
    """Say whether the tests are to run where time is a count of instructions."""
    given = config.getoption("bpf_exact")
    return bool(config.getini("bpf_exact") if given is None else given)


def judged(config: pytest.Config) -> bool:
    """Say whether all tests are judged, and not only those that ask for it."""
    budget = config.getoption("bpf_budget") or config.getini("bpf_budget")
    chosen = baselines(config)
    return bool(budget or chosen.compared or chosen.written or chosen.against or reports(config))


def baselines(config: pytest.Config) -> Baselines:
    """Return what the user wants of baselines; raises `pytest.UsageError`."""
    saved: str | None = config.getoption("bpf_save_baseline")
    updating = bool(config.getoption("bpf_update_baseline"))
    name = config.getoption("bpf_baseline") or config.getini("bpf_baseline")
    if saved and ("::" in saved or saved.endswith((".py", "/")) or Path(saved).is_dir()):
        raise pytest.UsageError(
            f"--bpf-save-baseline took {saved!r} for its name: write --bpf-save-baseline="
            f"{DEFAULT_BASELINE}, or put it last"
        )
    if saved and updating:
        raise pytest.UsageError(
            "--bpf-save-baseline and --bpf-update-baseline: one writes, the other compares and "
            "then writes; give one of them"
        )
    if against := str(config.getoption("bpf_against") or ""):
        for other in ("bpf_baseline", "bpf_save_baseline", "bpf_update_baseline"):
            if config.getoption(other):
                raise pytest.UsageError(
                    f"--bpf-against compares with sources, --{other.replace('_', '-')} is about a "
                    "file: give one of them"
                )
        return Baselines(against=against)
    if updating:
        name = name or DEFAULT_BASELINE
    required = config.getoption("bpf_require_baseline")
    return Baselines(
        compared=_baseline(config, name),
        written=_baseline(config, name if updating else saved),
        updating=updating,
        required=bool(config.getini("bpf_require_baseline") if required is None else required),
    )


def reports(config: pytest.Config) -> list[tuple[str, Path]]:
    """Return the formats and files of the reports to write; raises `pytest.UsageError`."""
    found = []
    for written in config.getoption("bpf_report") or config.getini("bpf_reports"):
        kind, given, path = written.partition(":")
        if kind not in REPORT_FORMATS:
            raise pytest.UsageError(
                f"--bpf-report={written}: no format {kind!r}{near_matches(kind, REPORT_FORMATS)}"
            )
        if not given or not path:
            raise pytest.UsageError(f"--bpf-report={written}: to which file? {kind}:FILE")
        found.append((kind, config.invocation_params.dir / Path(path).expanduser()))
    return found


def _baseline(config: pytest.Config, name: str | None) -> Path | None:
    """Return the file of a baseline that was given by name, or by its path from here."""
    if not name:
        return None
    if "/" in name or name.endswith(".json"):
        return config.invocation_params.dir / Path(name).expanduser()
    return config.rootpath / BASELINES / f"{name}.json"


def _read(config: pytest.Config) -> Settings:
    def chosen(name: str) -> object:
        given = config.getoption(name)
        return config.getini(name) if given is None else given

    cache_dir = str(chosen("bpf_cache_dir"))
    if cache_dir:
        os.environ["PYTEST_BPF_CACHE"] = str(config.rootpath / Path(cache_dir).expanduser())
    return Settings(
        cc=str(chosen("bpf_cc")),
        cflags=tuple(config.getini("bpf_cflags")),
        include_dirs=tuple(config.getini("bpf_include_dirs")),
        defines=dict(map(_define, config.getini("bpf_defines"))),
        cache_dir=cache_dir,
        strict=bool(chosen("bpf_strict")),
        costs=bool(chosen("bpf_costs")),
    )


def _define(line: str) -> tuple[str, str | None]:
    name, given, value = line.partition("=")
    return name.strip(), value.strip() if given else None
