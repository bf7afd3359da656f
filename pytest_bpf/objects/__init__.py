"""What is loaded: objects, and their programs, maps and links. Knows the kernel, not pytest."""

from pytest_bpf.objects.event_values import EventArray, EventList
from pytest_bpf.objects.events import Events
from pytest_bpf.objects.link import Link
from pytest_bpf.objects.map import Map
from pytest_bpf.objects.object import Object
from pytest_bpf.objects.percpu import PerCPU
from pytest_bpf.objects.program import Program
from pytest_bpf.objects.run import Run
from pytest_bpf.objects.verifier import VerifierStats

__all__ = [
    "EventArray",
    "EventList",
    "Events",
    "Link",
    "Map",
    "Object",
    "PerCPU",
    "Program",
    "Run",
    "VerifierStats",
]
