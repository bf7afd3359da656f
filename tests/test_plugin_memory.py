"""What stays in memory of a test after it: no more than pytest itself keeps."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.test_plugin import XDP

COUNTING = """
    import collections, gc

    finished, counts = 0, []

    def pytest_runtest_logfinish():
        global finished
        finished += 1
        if finished in (20, 60, 100):
            gc.collect()
            counts.append(collections.Counter())
            for each in gc.get_objects():  # `Counter` would keep the class of a generator
                counts[-1][f"{type(each).__module__}.{type(each).__name__}"] += 1

    def pytest_unconfigure():
        print("KEPT", dict((counts[1] - counts[0]) & (counts[2] - counts[1])))
"""
"""Print how many objects of each type stayed of forty tests, and again of the next forty.

What is made once, as the program that reads a map from some time on, is made in one of them.
"""

ALONE = """
    import pytest

    @pytest.fixture
    def thing():
        yield

    @pytest.mark.parametrize("number", range(105))
    def test_it(thing, number):
        pass
"""

BODIES = {
    "bpf": """
        obj = bpf.load("pass.bpf.c")
        assert obj.programs["pass"].test_run(bytes(64)).retval == 2
        assert obj.maps["seen"][0] == 1
    """,
    "bpf_module": """
        bpf_module.find_map
    """,
    "bpf_netns_pair, bpf_drops": """
        left, right = bpf_netns_pair
        assert left.traffic.udp(to=right, count=3).received == 3
        assert bpf_drops.total == 0
    """,
    "bpf_cgroup, bpf_pins": """
        assert bpf_cgroup.run(lambda: 1) == 1
        assert bpf_pins.is_dir()
    """,
    "bpf_places_module, bpf_places_session, bpf_places": """
        bpf_places.namespace()
    """,
    "bpf, bpf_equivalent, bpf_fuzz, bpf_worst, bpf_syscalls, bpf_statistics, bpf_lint": """
        bpf_syscalls.getpid(3)
    """,
}


def kept(pytester: pytest.Pytester) -> Counter[str]:
    """Run the tests of a folder; return what stayed of forty of them, each time, by type."""
    plugins = ("cacheprovider", "xdist", "rerunfailures", "timeout", "hypothesispytest")
    without = [word for name in plugins for word in ("-p", f"no:{name}")]
    result = pytester.runpytest_subprocess(*without, "-q")
    result.assert_outcomes(passed=105)
    [line] = [line for line in result.outlines if "KEPT " in line]
    return Counter(ast.literal_eval(line.partition("KEPT ")[2]))


@pytest.mark.parametrize("fixtures", BODIES)
def test_of_a_test_no_more_is_kept_than_pytest_keeps(
    pytester: pytest.Pytester, fixtures: str
) -> None:
    pytester.makeconftest(COUNTING)
    pytester.makepyfile(test_it=ALONE)
    alone = kept(pytester)
    (pytester.path / "pass.bpf.c").write_text(XDP)
    pytester.makepyfile(
        test_it=f"""
    import pytest

    @pytest.mark.parametrize("number", range(105))
    def test_it({fixtures}, number):{BODIES[fixtures]}
    """
    )
    ours = kept(pytester)
    more = {name: f"{count} instead of {alone[name]}" for name, count in (ours - alone).items()}
    assert sum(ours.values()) < sum(alone.values()) + 20, more  # fewer than one of each other test
    assert alone, "pytest keeps a report of each phase"
