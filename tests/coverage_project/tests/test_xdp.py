"""Tests of a downstream repository that counts the lines of its program."""

SOURCE = "../bpf/xdp.bpf.c"


def test_a_short_packet(bpf):
    assert bpf.load(SOURCE).programs["filter"].test_run(bytes(14)).retval == 1


def test_an_ipv4_packet(bpf):
    packet = bytes(12) + b"\x08\x00" + bytes(50)
    run = bpf.load(SOURCE).programs["filter"].test_run(packet)
    assert run.retval == 2


def test_what_it_costs(bpf, bpf_measure):
    assert bpf.load(SOURCE).programs["filter"].verified_insns < 100


def test_the_path_of_another_packet(bpf, bpf_lines):
    obj = bpf.load(SOURCE)
    lines = bpf_lines(obj, lambda: obj.programs["filter"].test_run(bytes(64)))
    assert lines[36] == 1
    assert lines["parse.h", 4] == 0
    assert 34 not in lines.executed
