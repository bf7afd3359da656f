"""What the user chose for a session, read once: options, then the ini file, then the environment.

Whatever needs a setting is handed it, or reads it from `settings`. `apply` is the one place where
a setting takes effect for the process, and it is undone at the session's end.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.errors import near_matches
from pytest_bpf.plugin import kernel_settings
from pytest_bpf.plugin.options import (
    ANNOTATE_REPORTS,
    COV,
    COV_REPORTS,
    DEFAULT_BASELINE,
    KEEP,
    REPORT_FORMATS,
    STATES,
    STDOUT,
)
from pytest_bpf.plugin.paths import path_of, report_file, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_bpf.budgets.limits import Origin

SETTINGS = pytest.StashKey["Settings"]()
C_FILES = pytest.StashKey["frozenset[Path]"]()

VARIABLES = {
    "bpf_cc": "PYTEST_BPF_CC",
    "bpf_libbpf": "PYTEST_BPF_LIBBPF",
    "bpf_cache_dir": "PYTEST_BPF_CACHE",
}
"""The settings that the environment may have, where neither option nor ini file does."""

BASELINES = "bpf-baselines"
"""The folder of baselines that are given by name, in pytest's root directory."""

C_TESTS = "*.test.bpf.c"
"""Files with tests in C that are collected without being named."""


@dataclass(frozen=True)
class Baselines:
    """Which baseline is compared with, which is written (None: none), and how.

    ``against`` is what sources it is compared with instead: a revision, or a folder.
    """

    compare: Path | None = None
    save: Path | None = None
    update: bool = False
    require: bool = False
    against: str = ""


@dataclass(frozen=True)
class Settings:
    """What the user chose for one session.

    ``cc``, ``libbpf`` and ``cache_dir`` may come from the environment; `origin` says where they
    do. ``limits`` are lines of ``bpf_budget``, each with where it was written; ``reports`` are
    formats with their files. ``kernels`` are as written (none: the running one), and so are
    ``optional_kernels``, which may fail; ``machine`` has the words for ``python -m pytest_bpf.vm``,
    ``most_memory`` the MiB that it may get.
    """

    cc: str
    libbpf: Path | None
    cache_dir: Path | None
    origins: Mapping[str, str]
    cflags: tuple[str, ...]
    include_dirs: tuple[Path, ...]
    defines: Mapping[str, str | None]
    build_command: str
    build_object: str
    compile_commands: Path | None
    c_tests: tuple[str, ...]
    strict: bool
    costs: bool
    lint: bool
    cov: str
    cov_reports: tuple[tuple[str, Path | None], ...]
    cov_apart: bool
    annotate: bool
    annotate_reports: tuple[tuple[str, Path], ...]
    state: bool
    artifacts: Path | None
    artifacts_keep: str
    captures: bool
    trace: bool
    rerun_traced: bool
    kernels: tuple[str, ...]
    optional_kernels: tuple[str, ...]
    exact: bool
    machine: tuple[str, ...]
    most_memory: int
    limits: tuple[tuple[str, Origin], ...]
    allowed: tuple[str, ...]
    baselines: Baselines
    reports: tuple[tuple[str, Path], ...]
    claims: Path | None

    @classmethod
    def from_config(cls, config: pytest.Config, environment: Mapping[str, str]) -> Settings:
        """Read them; raises `pytest.UsageError` for what cannot be understood."""
        reader = _Reader(config, environment)
        exact = bool(reader.value("bpf_exact"))
        kernels, optional = kernel_settings.kernels(config, exact=exact)
        compile_commands = str(config.getini("bpf_compile_commands"))
        claims: str | None = config.getoption("bpf_claims")
        annotations = _annotate_reports(config)
        return cls(
            cc=reader.text("bpf_cc"),
            libbpf=reader.path("bpf_libbpf", option_folder=config.invocation_params.dir),
            cache_dir=reader.path("bpf_cache_dir", option_folder=config.rootpath),
            origins={name: reader.origin(name) for name in VARIABLES},
            cflags=words(config, "bpf_cflags"),
            include_dirs=tuple(config.getini("bpf_include_dirs")),
            defines=dict(map(_define, config.getini("bpf_defines"))),
            build_command=str(config.getini("bpf_build_command")),
            build_object=str(config.getini("bpf_build_object")),
            compile_commands=config.rootpath / compile_commands if compile_commands else None,
            c_tests=tuple(config.getini("bpf_c_tests")),
            strict=bool(reader.value("bpf_strict")),
            costs=bool(reader.value("bpf_costs")),
            lint=bool(reader.value("bpf_lint")),
            cov=_one_of("bpf_cov", reader, COV),
            cov_reports=_cov_reports(config),
            cov_apart=bool(reader.value("bpf_cov_apart")),
            annotate=bool(config.getoption("bpf_annotate") or annotations),
            annotate_reports=annotations,
            state=_one_of("bpf_state", reader, STATES) == "on",
            artifacts=_artifacts(config, reader),
            artifacts_keep=_one_of("bpf_artifacts_keep", reader, KEEP),
            captures=bool(reader.value("bpf_artifacts_capture")),
            trace=bool(reader.value("bpf_trace")),
            rerun_traced=bool(reader.value("bpf_rerun_traced")),
            kernels=kernels,
            optional_kernels=optional,
            exact=exact,
            machine=(*(["--exact"] if exact else []), *kernel_settings.machine(reader.value)),
            most_memory=kernel_settings.most_memory(reader.value),
            limits=(
                *((line, "command line") for line in config.getoption("bpf_budget") or []),
                *((line, "ini") for line in config.getini("bpf_budget") if line),
            ),
            allowed=tuple(config.getini("bpf_allowed")),
            baselines=_baselines(config, reader),
            reports=_reports(config),
            claims=path_of(config, "--bpf-claims", claims) if claims else None,
        )

    @property
    def chooses_kernels(self) -> bool:
        """Whether tests run in workers, each on its kernel."""
        return bool(self.kernels or self.optional_kernels)

    @property
    def judges_every_test(self) -> bool:
        """Whether all tests are judged, and not only those that ask for it."""
        return self.measures_every_test or bool(self.reports)

    @property
    def measures_every_test(self) -> bool:
        """Whether programs are measured in all tests, as they ship.

        A report measures, too, unless lines are asked for: programs that count them cost more.
        """
        chosen = self.baselines
        files = chosen.compare or chosen.save or chosen.against
        counts = self.cov == "on" or self.cov_reports
        return bool(self.limits or files or (self.reports and not counts))


def settings(config: pytest.Config) -> Settings:
    """Return the settings of a session, read when they are first asked for."""
    if SETTINGS not in config.stash:
        config.stash[SETTINGS] = Settings.from_config(config, os.environ)
    return config.stash[SETTINGS]


def apply(config: pytest.Config) -> None:
    """Use the session's cache and libbpf until it ends; those of another session are not used.

    Raises `UnavailableError` for a libbpf that cannot be had. Without a choice, and where nothing
    has been imported that could have another one, this imports nothing.
    """
    chosen = settings(config)
    if chosen.cache_dir or "pytest_bpf.cache" in sys.modules:
        from pytest_bpf import cache

        config.add_cleanup(cache.choose(chosen.cache_dir))
    if chosen.libbpf or "pytest_bpf.kernel.sys.libbpf" in sys.modules:
        from pytest_bpf.kernel.sys import libbpf

        config.add_cleanup(libbpf.choose(chosen.libbpf))


def counts_lines(config: pytest.Config) -> bool:
    """Say whether the lines of all tests are counted: asked for, or with coverage.py."""
    chosen = settings(config)
    if chosen.cov != "auto":
        return chosen.cov == "on"
    with_pytest_cov = config.getoption("cov_source", None) and not config.getoption("no_cov", None)
    if chosen.cov_reports or with_pytest_cov:
        return True
    if "coverage" not in sys.modules or config.getoption("no_cov", None):
        return False
    from pytest_bpf.plugin.coverage import coverage_py

    return coverage_py.runs_with_plugin(config)


def has_c_tests(config: pytest.Config, path: Path) -> bool:
    """Say whether a file is one with tests in C: by its name, or by ``bpf_c_tests``."""
    return path.match(C_TESTS) or path in c_files(config)


def c_files(config: pytest.Config) -> frozenset[Path]:
    """Return the files that ``bpf_c_tests`` names, found once a session.

    Raises `pytest.UsageError` for a pattern that names none.
    """
    if C_FILES not in config.stash:
        patterns = settings(config).c_tests
        config.stash[C_FILES] = frozenset(
            file for pattern in patterns for file in _files(config.rootpath, pattern)
        )
    return config.stash[C_FILES]


def _files(root: Path, pattern: str) -> list[Path]:
    """Return the files that a pattern names: from the root folder, or an absolute one."""
    try:
        relative = Path(pattern)
        base = Path(relative.anchor) if relative.is_absolute() else root
        files = list(base.glob(str(relative.relative_to(relative.anchor))))
    except (ValueError, OSError) as error:
        raise pytest.UsageError(f"bpf_c_tests: {pattern!r} is no pattern: {error}") from None
    if not files:
        raise pytest.UsageError(f"bpf_c_tests: {pattern!r} names no file in {base}")
    return files


class _Reader:
    """Reads one setting: from the command line, else the ini file, else the environment."""

    def __init__(self, config: pytest.Config, environment: Mapping[str, str]) -> None:
        self._config = config
        self._environment = environment

    def value(self, name: str) -> Any:
        """Return what the option says, or else the ini file."""
        if (option := self._config.getoption(name)) is not None:
            return option
        try:
            return self._config.getini(name)
        except (ValueError, pytest.UsageError) as error:
            raise pytest.UsageError(f"{name}: {error}") from None

    def text(self, name: str) -> str:
        """Return a setting of `VARIABLES`; empty where there is none."""
        return str(self.value(name)) or self._environment.get(VARIABLES[name], "")

    def origin(self, name: str) -> str:
        """Return what a setting of `VARIABLES` is called where the user made it."""
        if self._config.getoption(name) is not None:
            return f"--{name.replace('_', '-')}"
        return name if self._config.getini(name) else VARIABLES[name]

    def path(self, name: str, *, option_folder: Path) -> Path | None:
        """Return a path of `VARIABLES`, None where there is none.

        A relative one starts at ``option_folder`` in an option, at pytest's root directory in the
        ini file, and at the current folder in the environment.
        """
        text, origin = self.text(name), self.origin(name)
        if not text:
            return None
        if origin == VARIABLES[name]:
            return Path(text).absolute()
        folder = self._config.rootpath if origin == name else option_folder
        return path_of(self._config, origin, text, folder)


def _one_of(name: str, reader: _Reader, choices: Sequence[str]) -> str:
    """Return a setting that is one of several words."""
    text = str(reader.value(name))
    if text not in choices:
        raise pytest.UsageError(f"{name} is {' or '.join(choices)}, not {text!r}")
    return text


def _artifacts(config: pytest.Config, reader: _Reader) -> Path | None:
    """Return the folder of artifacts; None when none are kept."""
    option: str | None = config.getoption("bpf_artifacts")
    text = option or str(config.getini("bpf_artifacts"))
    if not text or _one_of("bpf_artifacts_keep", reader, KEEP) == "none":
        return None
    return path_of(config, "--bpf-artifacts", text, None if option else config.rootpath)


def _baselines(config: pytest.Config, reader: _Reader) -> Baselines:
    save: str | None = config.getoption("bpf_save_baseline")
    update = bool(config.getoption("bpf_update_baseline"))
    name = config.getoption("bpf_baseline") or config.getini("bpf_baseline")
    if save and (
        "::" in save
        or save.endswith((".py", "/"))
        or path_of(config, "--bpf-save-baseline", save).is_dir()
    ):
        raise pytest.UsageError(
            f"--bpf-save-baseline took {save!r} for its name: write --bpf-save-baseline="
            f"{DEFAULT_BASELINE}, or put it last"
        )
    if save and update:
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
    if update:
        name = name or DEFAULT_BASELINE
    return Baselines(
        compare=_baseline_file(config, name),
        save=_baseline_file(config, name if update else save),
        update=update,
        require=bool(reader.value("bpf_require_baseline")),
    )


def _baseline_file(config: pytest.Config, name: str | None) -> Path | None:
    """Return the file of a baseline that was given by name, or by its path from here."""
    if not name:
        return None
    if "/" in name or name.endswith(".json"):
        return path_of(config, "--bpf-baseline", name)
    return path_of(config, "--bpf-baseline", f"{name}.json", config.rootpath / BASELINES)


def _reports(config: pytest.Config) -> tuple[tuple[str, Path], ...]:
    """Return the formats and files of the reports to write."""
    reports = []
    for line in config.getoption("bpf_report") or config.getini("bpf_reports"):
        kind, colon, path = line.partition(":")
        if kind not in REPORT_FORMATS:
            raise pytest.UsageError(
                f"--bpf-report={line}: no format {kind!r}{near_matches(kind, REPORT_FORMATS)}"
            )
        if kind == "github" and path in {"", "-"}:
            reports.append((kind, STDOUT))
            continue
        if not colon or not path:
            raise pytest.UsageError(f"--bpf-report={line}: to which file? {kind}:FILE")
        reports.append((kind, path_of(config, "--bpf-report", path)))
    return tuple(reports)


def _cov_reports(config: pytest.Config) -> tuple[tuple[str, Path | None], ...]:
    """Return the formats and files of the reports of lines; the terminal's has none."""
    lines = config.getoption("bpf_cov_report") or config.getini("bpf_cov_reports")
    reports: list[tuple[str, Path | None]] = []
    for line in lines:
        if line.partition(":")[0] == "term":
            if line != "term":
                raise pytest.UsageError(f"--bpf-cov-report={line}: term takes no file")
            reports.append(("term", None))
        else:
            reports.append(report_file(config, "--bpf-cov-report", line, COV_REPORTS))
    return tuple(reports)


def _annotate_reports(config: pytest.Config) -> tuple[tuple[str, Path], ...]:
    """Return the formats and files of what lines cost."""
    option = "--bpf-annotate-report"
    lines: list[str] = config.getoption("bpf_annotate_report") or []
    return tuple(report_file(config, option, line, ANNOTATE_REPORTS) for line in lines)


def _define(line: str) -> tuple[str, str | None]:
    name, equals, value = line.partition("=")
    return name.strip(), value.strip() if equals else None
