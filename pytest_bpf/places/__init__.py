"""Where programs run: network namespaces and topologies, cgroups, directories of pins.

Everything here is private to the test, closed by ``close()`` or ``with``, and does not outlive the
test process: a namespace needs no name, and what has one (cgroups, pins) is named after its owner,
so that `sweep` finds what killed runs left.
"""

from pytest_bpf.places.cgroup import Cgroup
from pytest_bpf.places.layout import End, Layout
from pytest_bpf.places.namespace import Interface, Namespace
from pytest_bpf.places.netem import impair
from pytest_bpf.places.owned import sweep
from pytest_bpf.places.pins import PinDirectory
from pytest_bpf.places.topology import Topology, bridge, pair, router

__all__ = [
    "Cgroup",
    "End",
    "Interface",
    "Layout",
    "Namespace",
    "PinDirectory",
    "Topology",
    "bridge",
    "impair",
    "pair",
    "router",
    "sweep",
]
