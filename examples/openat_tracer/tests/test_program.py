"""The program alone."""

import os

import pytest


@pytest.fixture
def tracer(bpf, tmp_path):
    prefix = f"{tmp_path}/"[:31]
    obj = bpf.load("../src/openat.bpf.c", globals={"prefix": prefix.encode()})
    obj.attach()
    return obj


def test_only_files_below_the_prefix_are_sent(tracer, tmp_path):
    events = tracer.maps["events"].events()
    (tmp_path / "wanted").touch()
    with open("/proc/self/stat"):
        pass
    (event,) = events.read(count=1)
    assert event.pid == os.getpid()
    assert event.path == f"{tmp_path}/wanted"
    assert events.read() == []


def test_nothing_is_lost_without_a_reader(tracer, tmp_path):
    file = tmp_path / "file"
    for _ in range(1000):
        file.open("a").close()
    assert tracer.globals["lost"] == 0
    assert len(tracer.maps["events"].events().read()) == 1000


@pytest.mark.bpf_budget(verified_insns="2k", program="on_openat")
def test_costs(tracer, bpf_measure, bpf_syscalls):
    bpf_measure(tracer.programs["on_openat"], lambda: bpf_syscalls.openat(100))
