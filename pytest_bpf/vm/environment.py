"""What a command in a machine sees of the environment here: what it needs, and no secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_bpf.cache import OWNER

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM"}
    | {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TMPDIR", "CI", "PY_COLORS", "VIRTUAL_ENV"}
    | {"LD_LIBRARY_PATH", "XDG_CACHE_HOME", "SOURCE_DATE_EPOCH", "BUILD_NUMBER"}
)
"""The variables that programs look for, and that say nothing of anybody's credentials."""

PREFIXES = (
    "LC_",
    "PYTHON",
    "PYTEST_",
    "PY_",
    "BPF_",
    "BCC_",
    "COV_CORE_",
    "COVERAGE_",
    "HYPOTHESIS_",
)
"""What the names of others begin with: Python's, pytest's and its plugins', ours, BCC's."""

EXTRA = "PYTEST_BPF_PASS_ENV"
"""The variable that names others to be passed, with commas or blanks in between."""


def selection(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a command in a machine gets.

    >>> selection({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "PYTEST_ADDOPTS": "-q"}).keys()
    dict_keys(['PATH', 'PYTEST_ADDOPTS', 'PYTEST_BPF_CACHE_OWNER'])
    """
    names = NAMES | set(environment.get(EXTRA, "").replace(",", " ").split())
    passed = {
        name: value
        for name, value in environment.items()
        if name in names or name.startswith(PREFIXES)
    }
    return passed | {OWNER: str(os.geteuid())}
