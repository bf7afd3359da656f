"""Keep an XDP program in the kernel's dispatcher while it is measured.

An XDP program that is attached anywhere is called directly, by code that the kernel writes anew
whenever one comes or goes (``bpf_prog_change_xdp``). ``BPF_PROG_RUN`` that repeats puts a program
there as well, for the time of the call, and waits for RCU before and after. Between two calls the
process then sleeps for some 17 ms; caches get cold, and in a batch of a hundred short runs these
read up to twice what they take, not twice the same. A program that is there already does not wait.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_bpf.errors import UnavailableError
from pytest_bpf.kernel.sys import libbpf
from pytest_bpf.kernel.sys.network import LO, in_private_network
from pytest_bpf.kinds.attach_types import AttachType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_bpf.objects import Program


@contextmanager
def in_dispatcher(programs: Iterable[Program]) -> Iterator[None]:
    """Keep the one of ``programs`` that is of type XDP in the dispatcher.

    It is attached to the ``lo`` of a network namespace of its own, which is down: it does not run
    there. Where that cannot be done, nothing is, and measuring takes longer and is less certain.
    Several are left alone: the more there are, the longer the dispatcher takes to find each.
    """
    xdp_programs = [program for program in programs if program.type == "xdp"]
    with ExitStack() as stack:
        if len(xdp_programs) == 1:
            with suppress(OSError, UnavailableError):
                stack.enter_context(attach_to_lo(xdp_programs[0].fd))
        yield


@contextmanager
def attach_to_lo(fd: int) -> Iterator[None]:
    """Keep one by its descriptor; raises `OSError`, and `UnavailableError` without privilege."""
    with ExitStack() as stack:

        def attach() -> None:
            place = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, place)
            link = libbpf.call("bpf_link_create", fd, LO, AttachType.XDP, None)
            stack.callback(os.close, link)

        in_private_network(attach)
        yield
