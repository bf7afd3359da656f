"""Requests that not every kernel can be asked: what they say, byte by byte."""

from __future__ import annotations

import struct
import sys

import pytest

from pytest_bpf.netns import messages

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="bytes as x86 has them")

QDISC = """
    00000000 03000000 00000100 ffffffff 00000000
    0a000100 6e657465 6d000000
"""
"""``struct tcmsg``: interface 3, handle 1:, parent root; TCA_KIND "netem"."""

OPTIONS = "30000200 05000000 0a000000 4d000000 00000000 00000000 02000000"
"""TCA_OPTIONS: ``struct tc_netem_qopt`` with latency 5, limit 10, loss 77, jitter 2."""


@little_endian
@pytest.mark.parametrize(("rate", "encoded"), [(1000, "e8030000"), (0, "00000000")])
def test_netem_is_asked_for_as_tc_does_and_always_with_a_rate(rate: int, encoded: str) -> None:
    request = messages.netem(3, delay=5, jitter=2, loss=77, rate=rate, limit=10)
    wanted = f"{QDISC} {OPTIONS} 14000600 {encoded} 00000000 00000000 00000000"
    assert request.data[16:] == bytes.fromhex(wanted)
    assert request.description == "netem on interface 3"


def test_a_header_has_the_length_of_the_whole_request() -> None:
    made = (
        messages.get_link(7),
        messages.new_bridge("br0", 2, "02:00:00:00:00:01", 1500, snooping=True),
    )
    for request in made:
        assert struct.unpack_from("=I", request.data)[0] == len(request.data)


def test_attributes_end_where_the_next_one_can_start() -> None:
    for name in ("a", "ab", "abc", "abcd"):
        ends = (name, 2, "02:00:00:00:00:01"), ("b", 3, "02:00:00:00:00:02")
        assert len(messages.new_cable("veth", *ends, 5, 1500, 1).data) % 4 == 0
