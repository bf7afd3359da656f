"""Check what the user chose, before any test runs: a mistake there is an error, never a skip."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import BpfError, near_matches
from pytest_bpf.plugin.settings import VARIABLES, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pytest_bpf.plugin.settings import Settings


def check_options(config: pytest.Config) -> None:
    """Raise `pytest.UsageError` for a choice that cannot be had."""
    problems = [*_unknown_keys(config), *_empty_options(config)]
    if problems:
        raise pytest.UsageError("; ".join(problems))
    chosen = settings(config)
    problems = [
        *_cache_problems(chosen.origins["bpf_cache_dir"], chosen.cache_dir),
        *_include_dir_problems(chosen.include_dirs),
        *_define_problems(chosen.defines),
        *_build_problems(chosen),
        *_libbpf_problems(chosen.origins["bpf_libbpf"], chosen.libbpf),
        *_annotation_problems(chosen),
        *_allowed_problems(chosen),
        *_file_problems(chosen),
        *_compiler_problems(chosen.origins["bpf_cc"], chosen.cc),
    ]
    if problems:
        raise pytest.UsageError("; ".join(problems))


def check_marker_names(config: pytest.Config, names: Iterable[str]) -> None:
    """Raise `pytest.UsageError` for a marker that is nearly one of ours: it would do nothing."""
    known = [line.partition("(")[0].partition(":")[0].strip() for line in config.getini("markers")]
    ours = [name for name in known if name.startswith("bpf_")]
    for name in names:
        if name.startswith("bpf") and name not in known and get_close_matches(name, ours):
            raise pytest.UsageError(f"there is no marker {name!r}{near_matches(name, ours)}")


def _unknown_keys(config: pytest.Config) -> Iterator[str]:
    """Yield keys of the ini file that look like ours, and that nobody reads."""
    written = getattr(config, "_inicfg", None)  # pytest 9.1 deprecates the public name
    overrides: list[str] = config.getoption("override_ini") or []
    keys = {*(config.inicfg if written is None else written)}
    keys |= {line.partition("=")[0] for line in overrides}
    for key in sorted(key for key in keys if key.startswith(("bpf_", "bpf-"))):
        try:
            config.getini(key)
        except pytest.UsageError:
            continue  # there is such a key, and `settings` says what is wrong with its value
        except ValueError:
            yield f"there is no ini key {key!r}{near_matches(key.replace('-', '_'), _ours(config))}"


def _ours(config: pytest.Config) -> set[str]:
    """Return the names of our ini keys, or of the options where pytest does not tell."""
    keys = getattr(getattr(config, "_parser", None), "_inidict", None) or vars(config.option)
    return {name for name in keys if name.startswith("bpf_")}


def _empty_options(config: pytest.Config) -> Iterator[str]:
    """Yield options that were given without a value, as by a variable that is not set."""
    for name, value in sorted(vars(config.option).items()):
        if name.startswith("bpf_") and "" in (value if isinstance(value, list) else [value]):
            yield f"--{name.replace('_', '-')} is empty: give it a value, or leave it out"


def _annotation_problems(chosen: Settings) -> Iterator[str]:
    if chosen.annotate and (chosen.cov == "on" or chosen.cov_reports):
        yield (
            "--bpf-annotate counts programs as they ship, --bpf-cov other builds of them: "
            "give one of them"
        )


def _allowed_problems(chosen: Settings) -> Iterator[str]:
    if not chosen.allowed:
        return
    from pytest_bpf.budgets.tolerance import ToleranceError, parse_lines

    try:
        parse_lines(chosen.allowed)
    except ToleranceError as error:
        yield f"bpf_allowed: {error}"


def _file_problems(chosen: Settings) -> Iterator[str]:
    """Check the files of reports about lines, and the folder of artifacts."""
    if chosen.artifacts and not chosen.artifacts.is_dir() and chosen.artifacts.exists():
        yield f"--bpf-artifacts: {chosen.artifacts} is no folder"
    lines = [("--bpf-cov-report", *report) for report in chosen.cov_reports]
    costs = [("--bpf-annotate-report", *report) for report in chosen.annotate_reports]
    for option, kind, file in (*lines, *costs):
        if file is None:
            continue
        from pytest_bpf.budgets.results import ResultFileError, check_writable

        try:
            check_writable(file)
        except ResultFileError as error:
            yield f"{option}={kind}: {error}"


def _compiler_problems(origin: str, name: str) -> Iterator[str]:
    if not name:
        return
    from pytest_bpf.compile import find_compiler

    try:
        find_compiler(name)
    except BpfError as error:
        yield f"{origin}: {error}"


def _libbpf_problems(origin: str, path: Path | None) -> Iterator[str]:
    if path is None:
        return
    from pytest_bpf.kernel.sys import libbpf

    undo = libbpf.choose(path)
    try:
        libbpf.library()
    except BpfError as error:
        yield f"{origin}: {error}"
    finally:
        undo()


def _cache_problems(origin: str, folder: Path | None) -> Iterator[str]:
    """Check the folder of an option; a variable may be of another user's shell, and is no must."""
    if not folder or origin == VARIABLES["bpf_cache_dir"]:
        return
    from pytest_bpf.cache import folder_fault

    if fault := folder_fault(folder.absolute()):
        yield (
            f"{origin}: {folder} cannot be the cache: {fault}; "
            "it must be a folder that this user can write to, and nobody else"
        )


def _include_dir_problems(folders: tuple[Path, ...]) -> Iterator[str]:
    for folder in folders:
        if not folder.is_dir():
            yield f"bpf_include_dirs: there is no folder {folder}"


def _build_problems(chosen: Settings) -> Iterator[str]:
    if bool(chosen.build_command) != bool(chosen.build_object):
        yield (
            "bpf_build_command and bpf_build_object: give both, the command and what it makes "
            "(build/{name}.bpf.o)"
        )
    if chosen.compile_commands and not chosen.compile_commands.is_file():
        yield f"bpf_compile_commands: there is no file {chosen.compile_commands}"


def _define_problems(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if not name.isidentifier():
            yield f"bpf_defines: {name!r} cannot be defined: it is not a C identifier"
