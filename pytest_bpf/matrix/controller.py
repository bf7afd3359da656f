"""The side that starts the workers, each on its kernel, and hears from them."""

from __future__ import annotations

import shlex
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf import __version__
from pytest_bpf.matrix import hosts, saving
from pytest_bpf.matrix.names import without

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import execnet
    from xdist.workermanage import WorkerController

    from pytest_bpf.vm.spreading import KernelScheduling

HOST = "host"

TAIL = 16_384
"""Bytes of a dead machine's last words that a report shows at most."""

REDIRECT = 'exec 2>>"$1"; shift; exec "$@"'
"""For ``sh -c``: a command whose errors go to a file; pytest captures those of this process."""


@dataclass(frozen=True)
class Chosen:
    """A kernel of this session: what the user wrote, and its name in ids and tables."""

    choice: str
    name: str
    machine: tuple[str, ...] = ()

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a real host, reached by execnet."""
        return self.choice.startswith(hosts.WAYS)

    @property
    def is_virtual(self) -> bool:
        """Whether it runs in a machine."""
        return self.name != HOST and not self.is_elsewhere

    def worker(self, number: int) -> str:
        """Return the spec of one of its workers."""
        if self.is_elsewhere:
            return hosts.worker(self.name, number)
        return f"popen//id={self.name}{f'.{number}' if number else ''}//bpf_kernel={self.name}"

    @property
    def command(self) -> list[str]:
        """The command that runs what follows it in a machine with this kernel."""
        return [sys.executable, "-m", "pytest_bpf.vm", "--kernel", self.choice, *self.machine]


class Controller:
    """The side that starts the workers and hears from them."""

    def __init__(self, config: pytest.Config, chosen: Sequence[Chosen]) -> None:
        self._chosen = chosen
        self._kernels = {kernel.name: kernel for kernel in chosen}
        self._outcomes: dict[tuple[str, str], str] = {}
        self._collected: dict[str, Sequence[str]] = {}
        self._ended: set[tuple[str, str]] = set()
        self._last_words: dict[WorkerController, str] = {}
        self._logs: dict[str, Path] = {}
        self._read: dict[Path, int] = {}
        folder = tempfile.TemporaryDirectory(prefix="pytest-bpf-")
        config.add_cleanup(folder.cleanup)
        self._folder = Path(folder.name)

    def pytest_report_header(self) -> str:
        """Say in one line which kernels the tests run on."""
        names = ", ".join(kernel.name for kernel in self._chosen)
        how = " ".join(next((k.machine for k in self._chosen if k.is_virtual), ()))
        return f"bpf: pytest-bpf {__version__}, kernels {names}{how and f' ({how})'}"

    def pytest_xdist_setupnodes(
        self, config: pytest.Config, specs: Sequence[execnet.XSpec]
    ) -> None:
        """Give each worker its machine's command, when the saved machines are there."""
        saving.finish(config)
        for number, spec in enumerate(specs):
            kernel = self._kernels[str(spec.bpf_kernel)]
            if kernel.is_virtual:
                log = str(self._folder / f"{number}.log")
                command = [*kernel.command, "--or-here", "--", sys.executable]
                spec.python = shlex.join(["sh", "-c", REDIRECT, "sh", log, *command])
                self._logs[spec.python] = Path(log)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker its kernel's name, and where its compiler is."""
        node.workerinput["bpf_kernel"] = _kernel(node)
        kernel = self._kernels[_kernel(node)]
        if kernel.is_virtual:
            node.workerinput["bpf_compiler"] = _compiling(node.gateway.newchannel())
        if kernel.is_elsewhere:
            hosts.keep_path(node.gateway.spec)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> KernelScheduling:
        """Spread the tests kernel by kernel."""
        from pytest_bpf.vm.spreading import SCHEDULERS, KernelScheduling

        if config.option.dist not in SCHEDULERS:
            raise pytest.UsageError(
                f"--bpf-kernel goes with --dist {', '.join(SCHEDULERS)}, not {config.option.dist}"
            )
        count = len(config.option.tx) // len(self._chosen)
        machines = {kernel.name: count for kernel in self._chosen}
        return KernelScheduling(config, log, machines, config.option.dist)

    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        """Remember what is to run."""
        self._collected[_kernel(node)] = ids

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """Keep the last words of a machine that died; see to it that a host can go on."""
        kernel = self._kernels[_kernel(node)]
        if error and kernel.is_virtual:
            self._last_words[node] = self._last(node.gateway.spec)
        if error and kernel.is_elsewhere and node.gateway.spec.via:
            hosts.before_restart(node)

    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        """Show them in the report of the test that was running."""
        report.when = "call"
        words = self._last_words.get(report.node)
        if words:
            report.longrepr = f"{report.longrepr}\n{words}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> Generator[None, None, None]:
        """Keep the session, which counts the tests; say which host does not answer."""
        from execnet.gateway_bootstrap import HostNotFound

        self._session = session
        try:
            yield
        except (HostNotFound, OSError, EOFError) as error:
            hosts = [kernel.name for kernel in self._chosen if kernel.is_elsewhere]
            if not hosts:
                raise
            reason = str(error) or "the connection ended"
            raise pytest.UsageError(
                f"--bpf-kernel: no worker on {' or '.join(hosts)}: {reason}; it must answer with a "
                "Python that has pytest-bpf[vm]"
            ) from None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a report for its kernel."""
        self._session.testscollected = sum(map(len, self._collected.values()))
        node = getattr(report, "node", None)
        if node is None:
            return
        kernel = _kernel(node)
        self._ended.add((report.nodeid, kernel))
        outcome = _outcome(report)
        if outcome:
            self._outcomes[without(report.nodeid, kernel), kernel] = outcome

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """At the end, report as errors the tests whose workers died before they began."""
        result = yield
        if session.shouldstop or session.shouldfail:
            return result
        for kernel, ids in self._collected.items():
            for nodeid in ids:
                if (nodeid, kernel) not in self._ended:
                    self._report_lost(session.config, nodeid, kernel)
        return result

    def _report_lost(self, config: pytest.Config, nodeid: str, kernel: str) -> None:
        self._outcomes[without(nodeid, kernel), kernel] = "error"
        path = nodeid.partition("::")[0]
        report = pytest.TestReport(
            nodeid=nodeid,
            location=(path, None, nodeid),
            keywords={},
            outcome="failed",
            longrepr=f"never ran: the workers of kernel {kernel} died too often",
            when="setup",
        )
        config.hook.pytest_runtest_logreport(report=report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show tests against kernels, and which ran on none."""
        from pytest_bpf.reports.matrix import matrix_table, nowhere

        if not self._outcomes:
            return
        order = {
            without(nodeid, kernel): number
            for kernel, ids in self._collected.items()
            for number, nodeid in enumerate(ids)
        }
        outcomes = dict(sorted(self._outcomes.items(), key=lambda item: order.get(item[0][0], 0)))
        terminalreporter.section("bpf: tests on kernels")
        for line in matrix_table(outcomes, [kernel.name for kernel in self._chosen]):
            terminalreporter.write_line(line)
        if tests := nowhere(outcomes):
            terminalreporter.write_line(f"ran on no kernel, skipped on each: {len(tests)}")
            for test in tests:
                terminalreporter.write_line(f"  {test}")

    def _last(self, spec: execnet.XSpec) -> str:
        """Return what a machine's command has printed since this was asked last."""
        log = self._logs[str(spec.python)]
        if not log.exists():
            return ""
        with log.open("rb") as file:
            file.seek(self._read.get(log, 0))
            said = file.read()
            self._read[log] = file.tell()
        return said[-TAIL:].decode(errors="replace").strip()


def _compiling(channel: execnet.Channel) -> execnet.Channel:
    """Answer on ``channel`` what a worker wants compiled, each time in a thread of its own."""

    def respond(request: dict[str, Any]) -> None:
        from pytest_bpf.compile import elsewhere

        with suppress(OSError):
            channel.send(elsewhere.answer(request))

    def hear(request: dict[str, Any]) -> None:
        threading.Thread(target=respond, args=(request,), daemon=True).start()

    channel.setcallback(hear)
    return channel


def _kernel(node: WorkerController) -> str:
    name: str = node.gateway.spec.bpf_kernel
    return name


def _outcome(report: pytest.TestReport) -> str:
    """Return what a report makes of its test; empty when it decides nothing."""
    if hasattr(report, "wasxfail"):
        return {"skipped": "xfailed", "passed": "xpassed"}.get(report.outcome, "")
    if report.failed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    if report.skipped or report.when == "call":
        return report.outcome
    return ""
