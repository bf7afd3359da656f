"""What an item carries from its fixtures to its report, in pytest's own stash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_bpf.agents import Agents
    from pytest_bpf.claims import Finding
    from pytest_bpf.compile.earlier import Tree
    from pytest_bpf.loader import Loader

COSTS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
"""The costs of an item's programs, as they travel to its report."""

LOADER: pytest.StashKey[Loader] = pytest.StashKey()
"""Who loaded the objects of an item or a module."""

EARLIER: pytest.StashKey[Tree] = pytest.StashKey()
"""In the configuration: whose sources a test is loading now, instead of today's."""

MEASURED: pytest.StashKey[list[Any]] = pytest.StashKey()
"""What an item measured by itself: figures, or what has figures."""

FINDING: pytest.StashKey[Finding] = pytest.StashKey()
"""What an item makes of its claim."""

AGENTS: pytest.StashKey[Agents] = pytest.StashKey()
"""The agents of an item, whose output goes into its reports."""

CLAIM_PROPERTY = "bpf_claim"
"""The name under which what a test made of its claim is in its report's ``user_properties``."""
