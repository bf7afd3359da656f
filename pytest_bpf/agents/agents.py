"""Starting agents and ending them all: what the fixture ``bpf_agent`` is."""

from __future__ import annotations

import signal as signals
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_bpf.agents.agent import Agent
from pytest_bpf.agents.readiness import Readiness
from pytest_bpf.agents.starting import guard, start, words_of
from pytest_bpf.kernel import ids
from pytest_bpf.places import Cgroup

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pytest_bpf.agents.cost import AgentCost
    from pytest_bpf.kernel.ids import Kind
    from pytest_bpf.places import Namespace


class Agents:
    """Starts agents, and ends them by `close`, the last one first.

    ``folder`` is where they run, unless told otherwise; ``measured`` is called with every cost.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        measured: Callable[[AgentCost], object] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._measured = measured
        self.started: list[Agent] = []
        self._told: dict[int, int] = {}

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
    ) -> Agent:
        """Start ``command`` in a cgroup of its own, and return it once its programs are attached.

        A string is split into words as a shell does; no shell runs it. ``env`` is added to the
        environment, and ``namespace`` is the network namespace it runs in, else the test's.

        It counts as attached when it holds programs, all those are attached, and it rests: for
        0.1 s nothing changes while all its threads wait. ``programs`` says it exactly instead:
        how many, or their names. ``ready`` is a regular expression to wait for in its output first.

        In the end it gets ``stop_signal``, and SIGKILL when it still runs ``grace`` seconds after.
        What it leaves in the kernel is a fault unless it ``keeps`` it.

        Raises `AgentError` when there is no such command, it ends, or ``timeout`` seconds pass.
        """
        words = words_of(command)
        before = _in_kernel()
        cgroup = Cgroup()
        guarded = guard(cgroup)
        try:
            folder = Path(cwd) if cwd is not None else self._folder
            process, output = start(words, cgroup, namespace=namespace, env=env, cwd=folder)
            agent = Agent(
                Path(words[0]).name,
                process,
                output,
                cgroup,
                guard=guarded,
                before=before,
                measured=self._measured,
                stop_signal=stop_signal,
                grace=grace,
                keeps=keeps,
            )
        except BaseException:
            cgroup.close()
            guarded.communicate()
            raise
        self.started.append(agent)
        wanted = programs if programs is None or isinstance(programs, int) else tuple(programs)
        agent.wait_attached(Readiness(wanted, ready, timeout))
        return agent

    def new_output(self) -> list[tuple[str, str]]:
        """Return, by name, what each agent printed since this was asked last, where it did."""
        found = []
        for number, agent in enumerate(self.started):
            text = agent.printed.since(self._told.get(number, 0))
            self._told[number] = agent.printed.position
            if text:
                found.append((agent.name, text))
        return found

    def close(self) -> None:
        """End all of them; the faults of one do not keep the others. Raises `AgentError`."""
        with ExitStack() as last_first:
            for agent in self.started:
                last_first.callback(agent.stop)

    def __enter__(self) -> Agents:  # noqa: PYI034 (Self is 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_kernel() -> dict[Kind, set[int]]:
    return {"prog": set(ids.every("prog")), "map": set(ids.every("map"))}
