"""Tests with their programs as they were, for today's to be held against them.

The sources are found once, by the process that starts the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

from pytest_bpf.budgets.baseline import Baseline
from pytest_bpf.budgets.results import Results
from pytest_bpf.budgets.tolerance import parse_lines
from pytest_bpf.compile import trees
from pytest_bpf.errors import BpfError
from pytest_bpf.plugin.budgets.trial import TRIAL
from pytest_bpf.plugin.paths import path_of
from pytest_bpf.plugin.settings import settings
from pytest_bpf.plugin.stash import EARLIER

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from pytest_bpf.compile.trees import Tree

NAME = "bpf-against"

INPUT = "bpf_against"
"""What the controller tells its workers."""


def find(config: pytest.Config) -> Tree | None:
    """Return the tree that this session compares with; None when it compares with none.

    Raises `pytest.UsageError`.
    """
    source = settings(config).baselines.against
    if not source:
        return None
    if tree_input := getattr(config, "workerinput", {}).get(INPUT):
        root, folder, name = tree_input
        if not Path(folder).is_dir():
            raise pytest.UsageError(
                f"--bpf-against: {folder}, where the sources of {name} are, is not on this host"
            )
        return trees.Tree(Path(root), Path(folder), name)
    folder = path_of(config, "--bpf-against", source)
    try:
        if folder.is_dir():
            tree = trees.of_folder(source, folder, config.rootpath)
        else:
            tree = trees.of_revision(source, config.rootpath)
    except BpfError as error:
        raise pytest.UsageError(
            f"--bpf-against={source}: there is no folder {source}, and no revision: {error}"
        ) from None
    config.pluginmanager.register(Against(tree), NAME)
    return tree


class Against:
    """Says what is compared with, to the user and to the workers."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def pytest_report_header(self) -> str:
        """Say it in one line."""
        return f"bpf: compared with the sources of {self._tree.name}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker."""
        tree = self._tree
        node.workerinput[INPUT] = (str(tree.root), str(tree.folder), tree.name)


@dataclass(frozen=True)
class Before:
    """What a test measured with its programs as they were; ``object_digests`` is as in `Trial`."""

    baseline: Baseline
    object_digests: tuple[str, ...] = ()


BEFORE = pytest.StashKey[Before]()


def run_before(item: pytest.Item, nextitem: pytest.Item | None, tree: Tree) -> None:
    """Run a test with its programs as they were, and keep in its stash what it measured.

    A test that does not pass so has measured nothing, and its figures will be new.
    """
    item.config.stash[EARLIER] = tree
    properties = len(item.user_properties)
    try:
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    finally:
        del item.config.stash[EARLIER]
        del item.user_properties[properties:]
    trial, failed = item.stash[TRIAL], [report for report in reports if not report.passed]
    passed = trial.passed and not failed
    why = _why(failed[0]) if failed else "it was not measured"
    baseline = Baseline(
        tree.folder,
        Results(trial.figures if passed else {}),
        parse_lines(settings(item.config).allowed),
        why_new=f"with the sources of {tree.name}: {why}",
    )
    item.stash[BEFORE] = Before(baseline, trial.object_digests if passed else ())


def _why(failed: pytest.TestReport) -> str:
    """Return in one line why a test did not pass."""
    if isinstance(failed.longrepr, tuple):
        return failed.longrepr[2]
    crash = getattr(failed.longrepr, "reprcrash", None)
    message: str = crash.message if crash else failed.longreprtext
    return message.partition("\n")[0].removeprefix("pytest_bpf.errors.BpfError: ")
