"""What an item carries from its fixtures to its report, in pytest's own stash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.agents import Agents
    from pytest_bpf.budgets.claims import ClaimCheck
    from pytest_bpf.compile.trees import Tree
    from pytest_bpf.drops import Drops
    from pytest_bpf.lint import LintFinding
    from pytest_bpf.loader import Loader
    from pytest_bpf.netns.places import Places
    from pytest_bpf.plugin.coverage.annotating import Annotations
    from pytest_bpf.plugin.coverage.session import Lines

COSTS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()
"""The costs of an item's programs, as they travel to its report."""

COSTS_PROPERTY = "bpf_costs"
"""The name under which a test's costs are in its report's ``user_properties``."""

LINT: pytest.StashKey[set[LintFinding]] = pytest.StashKey()
"""What the lint rules found in the objects of an item."""

LINT_PROPERTY = "bpf_lint"
"""The name under which they are in a report's ``user_properties``."""

LOADER: pytest.StashKey[Loader] = pytest.StashKey()
"""Who loaded the objects of an item or a module."""

LINES: pytest.StashKey[Lines | Annotations] = pytest.StashKey()
"""In the configuration: what counts the lines of all tests."""

EARLIER: pytest.StashKey[Tree] = pytest.StashKey()
"""In the configuration: whose sources a test is loading now, instead of today's."""

MEASUREMENTS: pytest.StashKey[list[Any]] = pytest.StashKey()
"""What an item measured by itself: figures, or what has figures."""

CLAIM_CHECK: pytest.StashKey[ClaimCheck] = pytest.StashKey()
"""What an item makes of its claim."""

PLACES: pytest.StashKey[Places] = pytest.StashKey()
"""The namespaces and cgroups of an item."""

DROPS: pytest.StashKey[Drops] = pytest.StashKey()
"""The drops that an item counts."""

AGENTS: pytest.StashKey[Agents] = pytest.StashKey()
"""The agents of an item, whose output goes into its reports."""

CLAIM_PROPERTY = "bpf_claim"
"""The name under which what a test made of its claim is in its report's ``user_properties``."""

WARNED_SOURCES: pytest.StashKey[set[tuple[Path, str]]] = pytest.StashKey()
"""The sources whose compiler warnings were shown, with these."""

MADE: pytest.StashKey[set[str]] = pytest.StashKey()
"""In the configuration: the programs and maps that the present tests loaded, ``"program 7"``."""

TRACED: pytest.StashKey[bool] = pytest.StashKey()
"""On a test that runs a second time, with its path recorded."""

NOTES: pytest.StashKey[list[str]] = pytest.StashKey()
"""In the configuration: what became of reports and baselines, for the end of the session."""
