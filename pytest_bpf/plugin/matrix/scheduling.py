"""Which tests run where: every kernel runs all of them, spread over that kernel's own machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdist.scheduler import (
    LoadFileScheduling,
    LoadGroupScheduling,
    LoadScheduling,
    LoadScopeScheduling,
    WorkStealingScheduling,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

SCHEDULERS: dict[str, Any] = {
    "load": LoadScheduling,
    "loadfile": LoadFileScheduling,
    "loadgroup": LoadGroupScheduling,
    "loadscope": LoadScopeScheduling,
    "worksteal": WorkStealingScheduling,
}
"""What ``--dist`` means, for the machines of one kernel."""


def kernel_of(node: WorkerController) -> str:
    """Return the name of the kernel a worker runs on; its replacement has the same."""
    name: str = node.gateway.spec.bpf_kernel
    return name


class KernelScheduling:
    """A scheduler of pytest-xdist made of one for each kernel.

    ``machines`` tells how many workers each kernel has, ``how`` is one of `SCHEDULERS`. A kernel
    begins when its own workers have collected. A worker that died is replaced by one of the same
    kernel, which gets what that one had left.
    """

    def __init__(
        self, config: pytest.Config, log: Producer, machines: Mapping[str, int], how: str
    ) -> None:
        self.config = config
        self._parts: dict[str, Any] = {}
        for kernel, count in machines.items():
            part = self._parts[kernel] = SCHEDULERS[how](config, log)
            part.numnodes = count

    @property
    def nodes(self) -> list[WorkerController]:
        """All workers."""
        return [node for part in self._parts.values() for node in part.nodes]

    @property
    def collection_is_completed(self) -> bool:
        """Whether some kernel can begin."""
        return any(part.collection_is_completed for part in self._parts.values())

    @property
    def tests_finished(self) -> bool:
        """Whether every kernel has nothing left to give out."""
        return all(part.tests_finished for part in self._parts.values())

    @property
    def has_pending(self) -> bool:
        """Whether some test has not ended."""
        return any(part.has_pending for part in self._parts.values())

    def add_node(self, node: WorkerController) -> None:
        """Take a worker in."""
        self._part(node).add_node(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Let a worker go; return the test it died in."""
        crashed: str | None = self._part(node).remove_node(node)
        return crashed

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Note what a worker has collected."""
        self._part(node).add_node_collection(node, collection)

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """Note that a test has ended."""
        self._part(node).mark_test_complete(node, item_index, duration)

    def mark_test_pending(self, item: str) -> None:
        """Run a test again, wherever it is known."""
        for part in self._parts.values():
            if part.collection and item in part.collection:
                part.mark_test_pending(item)

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        """Note what a worker gave back (``--dist worksteal``)."""
        self._part(node).remove_pending_tests_from_node(node, indices)

    def schedule(self) -> None:
        """Give out tests on every kernel that can begin."""
        for part in self._parts.values():
            if part.collection_is_completed:
                part.schedule()

    def _part(self, node: WorkerController) -> Any:
        return self._parts[kernel_of(node)]
