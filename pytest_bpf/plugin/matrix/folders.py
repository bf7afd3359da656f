"""The folders in which files stay that tests write in a machine: anything else goes with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.plugin.paths import path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 4
"""How many folders a machine can have."""


def writable(config: pytest.Config, *, whole_project: bool = False) -> list[Path]:
    """Return what ``--bpf-writable`` names, and where other plugins write in their workers.

    Raises `pytest.UsageError` for what is no folder, or too many of them.
    """
    option = config.getoption("bpf_writable")
    named = option or config.getini("bpf_writable")
    root = None if option else config.rootpath
    folders = [path_of(config, "--bpf-writable", text, root) for text in named]
    for folder in folders:
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise pytest.UsageError(f"bpf_writable: {folder} is no folder that you can write to")
    folders += [config.rootpath] if whole_project else []
    folders += _of_plugins(config)
    outermost = [
        folder
        for folder in dict.fromkeys(map(Path.resolve, folders))
        if not any(other.resolve() in folder.parents for other in folders)
    ]
    if len(outermost) > MOST:
        raise pytest.UsageError(
            f"bpf_writable: a machine has {MOST} writable folders at most, not {len(outermost)}: "
            f"{', '.join(map(str, outermost))}; name one above them"
        )
    return outermost


def _of_plugins(config: pytest.Config) -> Iterator[Path]:
    """Allure's results, syrupy's snapshots when they are updated, Hypothesis' failing examples."""
    here = config.invocation_params.dir
    if results := getattr(config.option, "allure_report_dir", None):
        folder = here / results
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    if getattr(config.option, "update_snapshots", False):
        yield config.rootpath
    if config.pluginmanager.hasplugin("hypothesispytest") and (here / ".hypothesis").is_dir():
        yield here / ".hypothesis"
