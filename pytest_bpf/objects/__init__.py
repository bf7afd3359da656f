"""What is loaded: objects, and their programs, maps and links. Knows the kernel, not pytest."""

from pytest_bpf.objects.events.event_values import EventArray, EventList
from pytest_bpf.objects.events.events import Events
from pytest_bpf.objects.link.info import LinkInfo
from pytest_bpf.objects.link.link import Link
from pytest_bpf.objects.link.query import Attachment, query
from pytest_bpf.objects.loading.object import Object
from pytest_bpf.objects.maps.map import Map
from pytest_bpf.objects.maps.percpu import PerCPU
from pytest_bpf.objects.maps.stacks import Frame, StackTrace
from pytest_bpf.objects.programs.program import Program
from pytest_bpf.objects.programs.run import Run
from pytest_bpf.objects.programs.verifier import VerifierStats
from pytest_bpf.objects.types import CType, Types

__all__ = [
    "Attachment",
    "CType",
    "EventArray",
    "EventList",
    "Events",
    "Frame",
    "Link",
    "LinkInfo",
    "Map",
    "Object",
    "PerCPU",
    "Program",
    "Run",
    "StackTrace",
    "Types",
    "VerifierStats",
    "query",
]
