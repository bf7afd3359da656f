"""Packets by layers: the CPU time for 10,000 frames, side by side with scapy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.pairs import Laps, Spread, difference, ratio, take_turns
from benchmarks.report import Report, estimate, goal, spread
from pytest_bpf.kernel.layers.packet import Packet
from pytest_bpf.traffic.packets import tcp_frame

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 5
COUNT = 10_000
SHARE = 10
"""Scapy dissects one in so many of the frames; its time is multiplied."""

COMPARE, READ, SCAPY = "two packets compared", "one field read", "one field read by scapy"


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without scapy, only our side."""
    sent = [tcp_frame(sport=number, payload=bytes(20)) for number in range(COUNT)]
    received = [tcp_frame(sport=number, payload=bytes(20), ttl=63) for number in range(COUNT)]

    def compare() -> None:
        for one, two in zip(sent, received, strict=True):
            assert Packet(one).differences(two)[0] == "ip.ttl: 64, not 63"

    def read() -> None:
        for frame in sent:
            assert Packet(frame).ip.ttl == 64

    def read_by_scapy() -> None:
        for frame in sent[::SHARE]:
            assert Packet(frame).scapy()["IP"].ttl == 64

    report = Report(f"Packets by layers, ms of CPU time for {COUNT:,} frames", ("what", "time"))
    ways = {COMPARE: lambda: seconds(compare), READ: lambda: seconds(read)}
    try:
        read_by_scapy()
        ways[SCAPY] = lambda: seconds(read_by_scapy, SHARE)
    except ImportError as error:
        report.remarks.append(str(error))
    laps = take_turns(ways, rounds, warm_up=1)
    times = {way: [lap["CPU"] for lap in laps[way]] for way in ways}
    for way, values in times.items():
        report.rows.append((way, spread(Spread.of(values))))
    taken = difference(times[COMPARE], [0.0] * rounds)
    report.remarks.append(goal(f"{COMPARE}: {estimate(taken)} ms, at most 200", taken, most=200))
    if SCAPY in times:
        faster = ratio(times[SCAPY], times[READ])
        report.remarks.append(f"{READ}: {estimate(faster)} times as fast as by scapy.")
    return report


def seconds(function: Callable[[], object], share: int = 1) -> Laps:
    """Return the milliseconds of CPU time of a call, times ``share``."""
    begin = time.process_time()
    function()
    return Laps(CPU=share * (time.process_time() - begin) * 1000)
