"""What makes programs run: traffic between namespaces, loops of system calls, frames to inject.

`Traffic` sends from a network namespace and returns a `Sent`; `Syscalls` runs exact numbers of
system calls and returns a `Ran`; `packets` builds frames for ``BPF_PROG_RUN`` and raw sockets.
"""

from __future__ import annotations

from pytest_bpf.stimuli.endpoint import Endpoint
from pytest_bpf.stimuli.ends import TcpEnd, UdpEnd
from pytest_bpf.stimuli.sent import Sent
from pytest_bpf.stimuli.syscalls import Ran, Syscalls
from pytest_bpf.stimuli.traffic import Traffic

__all__ = ["Endpoint", "Ran", "Sent", "Syscalls", "TcpEnd", "Traffic", "UdpEnd"]
