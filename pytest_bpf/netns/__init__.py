"""Network namespaces, interfaces and topologies, private to a test.

A namespace has no name: a thread holds it, and it is gone when the thread ends or the process dies.
"""

from pytest_bpf.netns.interface import Interface
from pytest_bpf.netns.layout import End, Layout
from pytest_bpf.netns.namespace import Namespace
from pytest_bpf.netns.netem import impair
from pytest_bpf.netns.topology import Topology, bridge, pair, router

__all__ = [
    "End",
    "Interface",
    "Layout",
    "Namespace",
    "Topology",
    "bridge",
    "impair",
    "pair",
    "router",
]
