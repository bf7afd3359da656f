"""Paths that were given in options, each with a sentence for one that can be none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import near_matches

if TYPE_CHECKING:
    from collections.abc import Sequence


def path_of(config: pytest.Config, option: str, text: str, folder: Path | None = None) -> Path:
    """Return a path that was given for an option, from where pytest was started, or ``folder``.

    Raises `pytest.UsageError` for what can be no path.
    """
    try:
        path = (folder or config.invocation_params.dir) / Path(text).expanduser()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return path
    except (OSError, ValueError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        brief = text if len(text) <= 60 else f"{text[:57]}..."
        raise pytest.UsageError(f"{option}: {brief!r} is no path: {why}") from None
    return path


def words(config: pytest.Config, key: str) -> tuple[str, ...]:
    """Return the words of an ini key, split as a shell does; raises `pytest.UsageError`."""
    try:
        return tuple(config.getini(key))
    except (ValueError, pytest.UsageError) as error:
        raise pytest.UsageError(f"{key}: {error}; its words are split as a shell does") from None


def report_file(
    config: pytest.Config, option: str, line: str, formats: Sequence[str]
) -> tuple[str, Path]:
    """Return the format and the file of ``FORMAT:FILE``; raises `pytest.UsageError`."""
    kind, _, path = line.partition(":")
    if kind not in formats:
        raise pytest.UsageError(f"{option}={line}: no format {kind!r}{near_matches(kind, formats)}")
    if not path:
        raise pytest.UsageError(f"{option}={line}: to which file? {kind}:FILE")
    file = path_of(config, option, path)
    if file.is_dir():
        raise pytest.UsageError(f"{option}={line}: {path} is a folder, name a file")
    return kind, file
