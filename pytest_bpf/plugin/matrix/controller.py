"""The side that starts the workers, each on its kernel, and hears from them."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpf.plugin.matrix import connection, hosts
from pytest_bpf.plugin.matrix.ahead import import_ahead
from pytest_bpf.plugin.matrix.by_kernel import ByKernel
from pytest_bpf.plugin.matrix.choices import Absence, gateways, here, unique
from pytest_bpf.plugin.matrix.machines import Machines, compiling
from pytest_bpf.plugin.matrix.memory import LargerMachines
from pytest_bpf.plugin.matrix.names import strip_kernel, strip_kernel_in_snapshots
from pytest_bpf.plugin.matrix.relay import LOOPBACK, Relay
from pytest_bpf.plugin.settings import settings
from pytest_bpf.reports.matrix import matrix_table, nowhere

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import execnet
    from xdist.workermanage import WorkerController

    from pytest_bpf.plugin.matrix.choices import Choices, KernelChoice
    from pytest_bpf.plugin.matrix.hosts import Host
    from pytest_bpf.plugin.matrix.scheduling import KernelScheduling
    from pytest_bpf.plugin.matrix.waiting import WaitingMachines

AGAIN = "rerun"
"""The outcome of a test whose host is gone, and that is run elsewhere; as pytest-rerunfailures'."""

OVER = "over"
"""The outcome of a test whose host is gone, but that had ended before."""

STATUS = {AGAIN: (AGAIN, "R", "RERUN"), OVER: ("", "", "")}
"""What the terminal shows for these: category, letter, word."""


class Controller:
    """The side that starts the workers and hears from them."""

    def __init__(self, config: pytest.Config, choices: Choices, waiting: WaitingMachines) -> None:
        self._choices = list(choices.kernels)
        self._absences = list(choices.absences)
        self._connections = choices.connections
        self._places = {kernel.place: kernel for kernel in self._choices}
        self._names = unique(self._choices)
        self._session_names = self._names
        self._outcomes: dict[tuple[str, str], str] = {}
        self._by_kernel = ByKernel()
        self._collected: dict[str, Sequence[str]] = {}
        self._ended: set[tuple[str, str]] = set()
        self._waiting = waiting
        self._machines = Machines(waiting.folder)
        self._last_words: dict[WorkerController, str] = {}
        self._gone: set[Host] = set()
        self._moved: set[WorkerController] = set()
        self._again: dict[str, WorkerController] = {}
        self._larger = LargerMachines(settings(config).most_memory)
        self._enlarged: set[WorkerController] = set()

    def pytest_report_header(self) -> list[str]:
        """Say which kernels the tests run on, and what does not work there."""
        names = ", ".join(
            f"{kernel.place}{' (may fail)' * kernel.may_fail}" for kernel in self._choices
        )
        words = next((k.machine for k in self._choices if k.is_virtual), ())
        how = " ".join(word for word in words if not word.startswith("--writable"))
        return [
            f"bpf: pytest-bpf {version('pytest-bpf')}, kernels {names}{how and f' ({how})'}",
            *(f"bpf: {limit}" for kernel in self._choices for limit in kernel.limits),
            *(f"bpf: not on {absence.choice}: {absence.reason}" for absence in self._absences),
        ]

    @pytest.hookimpl(tryfirst=True)  # others count the workers
    def pytest_xdist_setupnodes(self, config: pytest.Config, specs: list[execnet.XSpec]) -> None:
        """Give each worker its machine's command, when the saved machines are there."""
        for place, reason in self._waiting.finish(config).items():
            self._give_up(config, place, reason)
        specs[:] = [spec for spec in specs if spec.bpf_place in self._places]
        for number, spec in enumerate(specs):
            kernel = self._places[str(spec.bpf_place)]
            if kernel.is_virtual:
                self._machines.equip(spec, kernel, number, self._waiting.take(kernel.place))

    def _give_up(self, config: pytest.Config, place: str, reason: str) -> None:
        """Go on without a kernel that may fail; `pytest.UsageError` when it is required.

        Its workers are no longer counted, and a host that has no other is not called again. Only
        its name stays one of the session's: an id with that kernel selects nothing on the others.
        """
        kernel = self._places.pop(place)
        self._choices.remove(kernel)
        if not kernel.may_fail or not self._choices:
            raise pytest.UsageError(f"no machine with kernel {place}: {reason}")
        self._names = unique(self._choices)
        self._absences.append(Absence(place, f"no machine with this kernel: {reason}"))
        option = config.option
        option.tx = [worker for worker in option.tx if not worker.endswith(hosts.at(place))]
        option.px = gateways(self._choices)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker its kernel's name, and where its compiler is."""
        kernel = self._places[_place(node)]
        node.sendcommand = hosts.unless_gone(node.sendcommand)
        node.workerinput["bpf_kernel"] = kernel.name
        node.workerinput["bpf_kernels"] = self._session_names
        if kernel.is_virtual:
            node.workerinput["bpf_memory_room"] = self._larger.room(node.gateway.spec)
        if kernel.is_virtual or kernel.host:
            node.workerinput["bpf_relay"] = channel = node.gateway.newchannel()
            Relay(channel, partial(_connect, node))
        sent = kernel.host.sent if kernel.host else None
        if kernel.is_virtual and (kernel.host is None or (sent and kernel.host.is_alike)):
            node.workerinput["bpf_compiler"] = compiling(node.gateway.newchannel(), sent)
        if kernel.host:
            hosts.keep_path(node.gateway.spec)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> KernelScheduling:
        """Spread the tests kernel by kernel."""
        from pytest_bpf.plugin.matrix.scheduling import SCHEDULERS, KernelScheduling

        if config.option.dist not in SCHEDULERS:
            raise pytest.UsageError(
                f"--bpf-kernel goes with --dist {', '.join(SCHEDULERS)}, not {config.option.dist}"
            )
        count = len(config.option.tx) // len(self._choices)
        machines = {
            name: count * sum(kernel.name == name for kernel in self._choices)
            for name in self._names
        }
        return KernelScheduling(config, log, machines, config.option.dist)

    def pytest_xdist_node_collection_finished(
        self, node: WorkerController, ids: Sequence[str]
    ) -> None:
        """Remember what is to run."""
        self._collected[_kernel(node)] = ids

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        """Keep the last words of a machine that died; see to it that the work goes on."""
        kernel = self._places[_place(node)]
        if snapshots := getattr(node, "workeroutput", {}).get("syrupy_report"):
            strip_kernel_in_snapshots(snapshots, kernel.name)
        if not error:
            return
        if kernel.host:
            node.gateway.spec.popen = True
            if hosts.is_gone(node, kernel.host.address):
                self._move(node, kernel, kernel.host)
                return
        if kernel.is_virtual:
            words = self._last_words[node] = self._machines.last_words(node, kernel)
            spec = node.gateway.spec
            if larger := self._larger.larger(spec, kernel, words):
                self._enlarged.add(node)
                self._machines.equip(spec, larger, len(self._enlarged) + 2000)

    def _move(self, node: WorkerController, kernel: KernelChoice, host: Host) -> None:
        """Have a worker started elsewhere, on the same kernel; or one that says there is none."""
        self._gone.add(host)
        spec = node.gateway.spec
        others = (k for k in self._choices if k.name == kernel.name and k.host not in self._gone)
        other = next(others, None) or (here(kernel) if kernel.is_virtual else None)
        if other is None:
            hosts.report_gone(spec, host.address)
            return
        self._places[other.place] = other
        spec.bpf_place = other.place
        self._machines.equip(spec, other, len(self._moved) + 1000)
        self._moved.add(node)

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: Any) -> None:
        """Show the last words in the report of the test that was running; or have it run again.

        A test is not to blame for the end of its host, when it is the first, and not for a machine
        that was too small when another one is larger.
        """
        node: WorkerController = report.node
        first = node in self._moved and crashitem not in self._again
        if first or node in self._enlarged:
            kernel = _kernel(node)
            if (strip_kernel(crashitem, kernel), kernel) in self._outcomes:
                report.outcome = OVER  # type: ignore[assignment]
                return
            with suppress(NotImplementedError):
                sched.mark_test_pending(crashitem)
                self._again[crashitem] = node
                report.outcome = AGAIN  # type: ignore[assignment]
                return
        report.when = "call"
        words = self._last_words.get(node)
        if words:
            report.longrepr = f"{report.longrepr}\n{words}"

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Name a test that is run again, on another host."""
        return STATUS.get(report.outcome)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave out of JUnit's file what one that is gone had begun: it has no outcome there."""
        from _pytest.junitxml import xml_key

        xml: Any = session.config.stash.get(xml_key, None)
        begun = list(xml.node_reporters.items()) if xml else []
        for (_, node), reporter in begun:  # what has ended is not among them
            if node in self._moved | self._enlarged and "name" not in reporter.attrs:
                xml.node_reporters_ordered.remove(reporter)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> Generator[None, None, None]:
        """Keep the session, which counts the tests; say which host does not answer."""
        self._session = session
        import_ahead(session.config)
        self._finish_connections(session.config)
        try:
            yield
        except hosts.lost() as error:
            far = dict.fromkeys(kernel.host.address.name for kernel in self._choices if kernel.host)
            if not far:
                raise
            raise pytest.UsageError(
                f"--bpf-kernel: {connection.unreachable(' or '.join(far), error)}"
            ) from None

    def _finish_connections(self, config: pytest.Config) -> None:
        """Wait for the machines of hosts; a host takes one connection at a time."""
        for kernel in list(self._choices):
            if kernel.host and kernel.is_virtual:
                talk = self._connections[kernel.host.address.spec]
                if reason := talk.finish_saving(kernel.place):
                    self._give_up(config, kernel.place, reason)
        for talk in self._connections.values():
            talk.close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a report for its kernel."""
        self._session.testscollected = sum(map(len, self._collected.values()))
        node = getattr(report, "node", None)
        if node is None:
            return
        kernel = _kernel(node)
        if report.outcome in STATUS:
            return
        self._ended.add((report.nodeid, kernel))
        if report.failed and self._may_fail(kernel):
            _excuse(report, kernel)
        test, outcome = strip_kernel(report.nodeid, kernel), _outcome(report)
        if outcome:
            self._outcomes[test, kernel] = outcome
        self._by_kernel.note(report, test, kernel)

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
        if settings(session.config).strict:
            for test in nowhere(self._outcomes):
                why = "; ".join(self._by_kernel.reasons(test))
                why = f"--bpf-strict: ran on no kernel: {why}"
                session.config.hook.pytest_runtest_logreport(report=_error(test, why))
        return result

    def _report_lost(self, config: pytest.Config, nodeid: str, kernel: str) -> None:
        report = _error(nodeid, f"never ran: the workers of kernel {kernel} died too often")
        if self._may_fail(kernel):
            _excuse(report, kernel)
        self._outcomes[strip_kernel(nodeid, kernel), kernel] = _outcome(report)
        config.hook.pytest_runtest_logreport(report=report)

    def _may_fail(self, name: str) -> bool:
        return all(kernel.may_fail for kernel in self._choices if kernel.name == name)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show tests against kernels, and which ran on none."""
        if not self._outcomes:
            return
        order = {
            strip_kernel(nodeid, kernel): number
            for kernel, ids in self._collected.items()
            for number, nodeid in enumerate(ids)
        }
        outcomes = dict(sorted(self._outcomes.items(), key=lambda item: order.get(item[0][0], 0)))
        terminalreporter.section("bpf: tests on kernels")
        for line in matrix_table(outcomes, self._names):
            terminalreporter.write_line(line)
        for absence in self._absences:
            terminalreporter.write_line(f"not on {absence.choice}: {absence.reason}")
        for sentence in self._larger.sentences:
            terminalreporter.write_line(sentence)
        if tests := nowhere(outcomes):
            terminalreporter.write_line(f"ran on no kernel, skipped on each: {len(tests)}")
            for test in tests:
                terminalreporter.write_line(f"  {test}")
                for line in self._by_kernel.reasons(test):
                    terminalreporter.write_line(f"    {line}")
        if settings(terminalreporter.config).costs and (
            lines := self._by_kernel.verifier(unique(self._choices))
        ):
            terminalreporter.section("bpf: instructions that the verifier processed, by kernel")
            terminalreporter.write_line("\n".join(lines))


def _error(nodeid: str, why: str) -> pytest.TestReport:
    """Return the report of a test that is an error without having run."""
    return pytest.TestReport(
        nodeid=nodeid,
        location=(nodeid.partition("::")[0], None, nodeid),
        keywords={},
        outcome="failed",
        longrepr=why,
        when="setup",
    )


def _connect(node: WorkerController, key: str) -> socket.socket:
    return socket.create_connection((LOOPBACK, node.workerinput[key]))


def _kernel(node: WorkerController) -> str:
    name: str = node.gateway.spec.bpf_kernel
    return name


def _excuse(report: pytest.TestReport, kernel: str) -> None:
    """Make a failure one that was to be expected, with the first line of what is wrong."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash else report.longrepr).strip()
    report.outcome = "skipped"
    report.wasxfail = f"may fail on {kernel}: {text.partition(chr(10))[0]}"


def _place(node: WorkerController) -> str:
    place: str = node.gateway.spec.bpf_place
    return place


def _outcome(report: pytest.TestReport) -> str:
    """Return what a report makes of its test; empty when it decides nothing."""
    if hasattr(report, "wasxfail"):
        return {"skipped": "xfailed", "passed": "xpassed"}.get(report.outcome, "")
    if report.failed:
        return "error" if report.when in ("setup", "teardown") else "failed"
    if report.skipped or report.when == "call":
        return report.outcome
    return ""
