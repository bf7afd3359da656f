"""Start agents, and end them all: what the fixture ``bpf_agent`` is."""

from __future__ import annotations

import signal as signals
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from pytest_bpf.agents.agent import Agent
from pytest_bpf.agents.objects import in_kernel
from pytest_bpf.agents.once import Command
from pytest_bpf.agents.process import AgentProcess
from pytest_bpf.agents.readiness import Readiness
from pytest_bpf.agents.start import command_words, guard, start
from pytest_bpf.agents.state import Place, cgroups_of
from pytest_bpf.agents.surroundings import Surroundings
from pytest_bpf.cgroup import Cgroup
from pytest_bpf.errors.arguments import checked_methods

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_bpf.agents.cost import AgentCost
    from pytest_bpf.netns import Namespace


@checked_methods
class Agents:
    """Starts agents; `close` ends them, the last one first.

    ``folder`` is where they run, by default; ``record`` is called with every cost.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        record: Callable[[AgentCost], object] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._record = record
        self.started: list[Agent] = []
        self._commands: list[Command] = []
        self._around: Surroundings | None = None
        self._positions: dict[int, int] = {}

    @overload
    def __call__(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        programs: int | Iterable[str] | None = None,
        ready: str | None = None,
        timeout: float = 30.0,
        namespace: Namespace | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stop_signal: int = signals.SIGTERM,
        grace: float = 5.0,
        keeps: bool = False,
        once: Literal[False] = False,
    ) -> Agent: ...
    @overload
    def __call__(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        once: Literal[True],
        check: bool = True,
        timeout: float = 30.0,
        namespace: Namespace | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Command: ...
    def __call__(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        programs: int | Iterable[str] | None = None,
        ready: str | None = None,
        timeout: float = 30.0,
        namespace: Namespace | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stop_signal: int = signals.SIGTERM,
        grace: float = 5.0,
        keeps: bool = False,
        once: bool = False,
        check: bool = True,
    ) -> Agent | Command:
        """Start ``command`` in a cgroup of its own, and return it once its programs are attached.

        A string is split into words as a shell does; no shell runs it. ``env`` is added to the
        environment, and ``namespace`` is the network namespace it runs in, else the test's.

        It counts as attached when it holds programs, all those are attached, and it rests: for
        0.1 s nothing changes while all its threads wait. ``programs`` says it exactly instead:
        how many, or their names. ``ready`` is a regular expression to wait for in its output first.

        In the end it gets ``stop_signal``, and SIGKILL when it still runs ``grace`` seconds after.
        What it leaves in the kernel is a fault unless it ``keeps`` it.

        With ``once`` it is a command that loads, pins or attaches, and ends: a `Command` says what
        it left. Its /sys/fs/bpf is a private one, which all such commands of a test share. Without
        ``check`` its exit status may be other than 0.

        Raises `AgentError` when there is no such command, it ends or fails, or ``timeout`` seconds
        pass.
        """
        words = command_words(command)
        folder = Path(cwd) if cwd is not None else self._folder
        if once:
            result = self._run(words, namespace, env, folder)
            result.run(timeout, check=check)
            return result
        before = in_kernel()
        with ExitStack() as undo:
            cgroup = undo.enter_context(Cgroup())
            killer = guard(cgroup)
            undo.callback(killer.communicate)
            undo.callback(cgroup.close)
            process, output = start(words, cgroup, namespace=namespace, env=env, cwd=folder)
            agent = Agent(
                Path(words[0]).name,
                AgentProcess(process, output, cgroup, killer),
                before=before,
                record=self._record,
                stop_signal=stop_signal,
                grace=grace,
                keeps=keeps,
            )
            undo.pop_all()
        self.started.append(agent)
        wanted = programs if programs is None or isinstance(programs, int) else tuple(programs)
        agent.wait_attached(Readiness(wanted, ready, timeout))
        return agent

    def _run(
        self,
        words: list[str],
        namespace: Namespace | None,
        env: Mapping[str, str] | None,
        folder: Path | None,
    ) -> Command:
        """Start a command that ends by itself."""
        if self._around is None:
            self._around = Surroundings()
        with ExitStack() as undo:
            cgroup = undo.enter_context(self._around.cgroup())
            place = Place(self._around.pins, namespace, cgroups_of(words))
            before = place.look()
            process, output = start(
                words, cgroup, namespace=namespace, env=env, cwd=folder, pins=place.pins
            )
            undo.pop_all()
        name = Path(words[0]).name
        result = Command(name, AgentProcess(process, output, cgroup, None), place, before)
        self._commands.append(result)
        return result

    def new_output(self) -> list[tuple[str, str]]:
        """Return, by name, what each agent printed since the last call, if anything."""
        outputs = []
        for number, agent in enumerate(self.started):
            text, gone = agent.printed.since(self._positions.get(number, 0))
            self._positions[number] = agent.printed.position
            if gone:
                text = f"(the first {gone} bytes are not kept)\n{text}"
            if text:
                outputs.append((agent.name, text))
        return outputs

    def close(self) -> None:
        """End all of them, also when one of them fails. Raises `AgentError`."""
        with ExitStack() as last_first:
            if self._around is not None:
                last_first.callback(self._around.close)
            for command in self._commands:
                last_first.callback(command.close)
            for agent in self.started:
                last_first.callback(agent.stop)

    def __enter__(self) -> Agents:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
