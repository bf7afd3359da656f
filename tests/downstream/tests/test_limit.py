"""What the programs do, and what they may cost."""

import pytest

from pytest_bpf import XdpAction
from pytest_bpf.traffic.packets import udp_frame

FRAME = udp_frame(dport=5353)


def limit(bpf):
    program = bpf.load("../bpf/limit.bpf.c").programs["limit"]
    program.test_run(FRAME)
    return program


def test_drops_what_is_beyond_the_share(bpf):
    program = bpf.load("../bpf/limit.bpf.c", globals={"share": 2}).programs["limit"]
    actions = [program.test_run(FRAME).retval for _ in range(4)]
    assert actions == [XdpAction.XDP_PASS, XdpAction.XDP_PASS, *[XdpAction.XDP_DROP] * 2]


@pytest.mark.bpf_requires(exact=True)
@pytest.mark.bpf_budget(instructions=250, program="limit")
def test_limit_costs_exactly(bpf, bpf_measure):
    program = limit(bpf)
    bpf_measure(program, lambda: program.test_run(FRAME, repeat=100))


@pytest.mark.bpf_budget(run_time="1ms", instructions=400, verified_insns=100, program="limit")
@pytest.mark.bpf_budget(map_memory="256kB", map="packets")
def test_limit_costs_natively(bpf, bpf_measure):
    program = limit(bpf)
    bpf_measure(program, lambda: program.test_run(FRAME, repeat=100))


@pytest.mark.bpf_budget(verified_insns=20, program="pass")
def test_pass_costs_little(bpf, bpf_measure):
    program = bpf.load("../bpf/pass.bpf.c").programs["pass"]
    bpf_measure(program, lambda: program.test_run(FRAME, repeat=100))
