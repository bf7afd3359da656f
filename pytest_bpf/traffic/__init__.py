"""Traffic between network namespaces: UDP, TCP, ping, raw frames, and frames for test runs.

`Traffic` sends from a namespace and returns a `TrafficResult`; `packets` builds frames.
"""

from __future__ import annotations

from pytest_bpf.traffic.endpoint import Endpoint
from pytest_bpf.traffic.ends import TcpEnd, UdpEnd
from pytest_bpf.traffic.result import TrafficResult
from pytest_bpf.traffic.traffic import Traffic

__all__ = ["Endpoint", "TcpEnd", "Traffic", "TrafficResult", "UdpEnd"]
