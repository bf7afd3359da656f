"""What all commands of a test that load and end have in common."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

from pytest_bpf.agents.start import guard
from pytest_bpf.cgroup import Cgroup
from pytest_bpf.kernel.sys.bpffs import PinDirectory


class Surroundings:
    """A directory of ``pins``, and a cgroup above those of the commands, with one guard for all.

    Close it: what runs there is killed, as it is when this process is gone.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        with ExitStack() as stack:
            pins = PinDirectory()
            stack.callback(pins.close)
            self._above = Cgroup()
            stack.callback(self._above.close)
            killer = guard(self._above)
            stack.callback(killer.communicate)
            stack.callback(self._above.close)
            self._stack = stack.pop_all()
        self.pins = pins.path

    def cgroup(self) -> Cgroup:
        """Return a new cgroup for a command."""
        return self._above.child(str(next(self._numbers)))

    def close(self) -> None:
        """Kill, and remove all of it."""
        self._stack.close()
