"""Tests with their programs as they were, for today's to be held against them.

The sources are found once, by the process that starts the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

from pytest_bpf import options
from pytest_bpf.budgets.allowed import parse_lines
from pytest_bpf.budgets.kept import Baseline
from pytest_bpf.budgets.results import Results
from pytest_bpf.compile import earlier
from pytest_bpf.errors import BpfError
from pytest_bpf.judging.trial import TRIAL
from pytest_bpf.stash import EARLIER

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from pytest_bpf.compile.earlier import Tree

NAME = "bpf-against"

INPUT = "bpf_against"
"""What the controller tells its workers."""


def find(config: pytest.Config) -> Tree | None:
    """Return the tree that this session compares with; None when it compares with none.

    Raises `pytest.UsageError`.
    """
    chosen = options.baselines(config).against
    if not chosen:
        return None
    if given := getattr(config, "workerinput", {}).get(INPUT):
        root, folder, name = given
        if not Path(folder).is_dir():
            raise pytest.UsageError(
                f"--bpf-against: {folder}, where the sources of {name} are, is not on this host"
            )
        return earlier.Tree(Path(root), Path(folder), name)
    folder = config.invocation_params.dir / chosen
    try:
        if folder.is_dir():
            tree = earlier.of_folder(chosen, folder, config.rootpath)
        else:
            tree = earlier.of_revision(chosen, config.rootpath)
    except BpfError as error:
        raise pytest.UsageError(
            f"--bpf-against={chosen}: there is no folder {chosen}, and no revision: {error}"
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
    """What a test measured with its programs as they were; ``built`` is as in `Trial`."""

    baseline: Baseline
    built: tuple[str, ...] = ()


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
        parse_lines(item.config.getini("bpf_allowed")),
        why_new=f"with the sources of {tree.name}: {why}",
    )
    item.stash[BEFORE] = Before(baseline, trial.built if passed else ())


def _why(failed: pytest.TestReport) -> str:
    """Return in one line why a test did not pass."""
    if isinstance(failed.longrepr, tuple):
        return failed.longrepr[2]
    crash = getattr(failed.longrepr, "reprcrash", None)
    said: str = crash.message if crash else failed.longreprtext
    return said.partition("\n")[0].removeprefix("pytest_bpf.errors.BpfError: ")
