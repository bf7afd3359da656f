"""The scenarios of xdp-tools' shell scripts, and the same with fixtures: lines and time.

``XDP_TOOLS`` is a folder with xdp-tools' sources; the scripts are run as they are there, but for
what Debian's xdp-filter cannot do, in namespaces of their own. xdp-forward is no package, so its
script runs with a command that does nothing, which it does not notice: its time is what the script
alone takes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.pairs import Laps, Spread, ratio, take_turns
from benchmarks.report import Report, estimate, goal, number, spread

ROUNDS = 3
PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "xdp-tools.md"
BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCENARIOS = {
    "xdp-filter": ("test_xdp_filter.py", r"(get_python|run_python_test|test_python_\w+)"),
    "xdp-forward": ("test_xdp_forward.py", "test_flowtable"),
}
"""Our file of each, and the functions of the script that it has no counterpart of."""

NEWER = re.compile(r"^\s*(check_arp|check_ndisc6)\w*( \w+)?$", re.MULTILINE)
"""What newer scripts ask of xdp-filter and Debian's cannot do; they neither count nor run."""

NAMESPACES = ["unshare", "--net", "--mount", "--propagation", "private"]
SETUP = (
    "ulimit() { :; }; export -f ulimit; "  # kernels since 5.11 need no locked memory
    "mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /run && mkdir -p /run/netns && "
    'ip link set lo up && exec "$@"'
)
PATIENCE = 900


def measure(rounds: int = ROUNDS) -> Report:
    """Measure; without the sources of xdp-tools, only our side."""
    report = Report(
        "xdp-tools' scenarios",
        ("scenario", "lines of ours", "of the script", "ours, s", "script, s"),
    )
    sources = os.environ.get("XDP_TOOLS")
    if not sources:
        report.remarks.append("XDP_TOOLS names no folder with xdp-tools' sources: only our side.")
    blocks: dict[str, str] = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as folder:
        for name, text in blocks.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        for tool, (file, left_out) in SCENARIOS.items():
            ways = {"ours": partial(ours, Path(folder, file))}
            script = Path(sources or "/none", tool, "tests", f"test-{tool}.sh")
            if script.exists():
                text = NEWER.sub("", script.read_text(encoding="utf-8"))
                copy = Path(folder, script.name)
                copy.write_text(text, encoding="utf-8")
                ways["script"] = partial(shell, copy, script.parents[2], left_out)
            laps = take_turns(ways, rounds, warm_up=1)
            times = {way: [lap["all"] for lap in laps[way]] for way in ways}
            alone = [lap["tests"] for lap in laps["ours"]]
            mine = lines(blocks[file])
            cells = [
                tool,
                str(mine),
                "",
                *(spread(Spread.of(t)) for t in (alone, times["ours"])),
                "",
            ]
            if "script" in ways:
                theirs = lines(without(text, rf"{left_out}|check_arp\w*|check_ndisc6"))
                cells[2], cells[5] = str(theirs), spread(Spread.of(times["script"]))
                faster = ratio(times["ours"], times["script"])
                last = laps["script"][-1]
                report.remarks.append(
                    f"{tool}: {number(mine / theirs)} of the script's lines, at most 0.2. Of the "
                    f"script's tests, {last['passed']:.0f} pass here and {last['failed']:.0f} fail."
                )
                tests = ratio(alone, times["script"])
                what = (
                    f"{tool}: a session {estimate(faster)} of the script's time, its tests without "
                    f"pytest's start {estimate(tests)}, at most 0.2"
                )
                report.remarks.append(goal(what, faster, most=0.2))
            report.rows.append(cells)
    return report


def lines(text: str) -> int:
    """Count lines that are neither empty nor comments."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines()
    )


def functions(text: str) -> dict[str, str]:
    """Return the functions of a shell script, which each end with a brace of their own line."""
    found = re.findall(r"^(\w+)\(\)\n(\{\n.*?^\}\n)(?=\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: f"{name}()\n{body}" for name, body in found}


def without(text: str, names: str) -> str:
    """Leave functions out of a shell script."""
    for name, body in functions(text).items():
        if re.fullmatch(names, name):
            text = text.replace(body, "")
    return text


def ours(file: Path) -> Laps:
    """Run our tests in a session of their own."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file.name]
    laps = timed([*words, "--junit-xml=report.xml"], file.parent)
    report = (file.parent / "report.xml").read_text(encoding="utf-8")
    laps["tests"] = sum(map(float, re.findall(r'<testcase [^>]*time="([\d.]+)"', report)))
    return laps


def shell(script: Path, root: Path, left_out: str) -> Laps:
    """Run the tests of a script one after another, without those that are left out."""
    named = re.search(r'ALL_TESTS="(.*?)"', script.read_text(encoding="utf-8"))
    assert named is not None
    tests = [name for name in named[1].split() if not re.fullmatch(left_out, name)]
    runner = [str(root / "lib" / "testing" / "test_runner.sh"), str(script)]
    words = [*NAMESPACES, "bash", "-c", SETUP, "bash", *runner, *tests]
    return timed(words, root, XDP_FILTER="xdp-filter", XDP_LOADER="xdp-loader", XDP_FORWARD="true")


def timed(words: list[str], folder: Path, **env: str) -> Laps:
    """Run a command; raise `RuntimeError` when no test of it passes."""
    begin = time.perf_counter()
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    laps = Laps(all=time.perf_counter() - begin)
    if not re.search(r"PASS|passed", done.stdout):
        raise RuntimeError(f"{' '.join(words)} passed no test:\n{done.stdout[-2000:]}")
    laps["passed"] = len(re.findall("PASS", done.stdout))
    laps["failed"] = len(re.findall("FAIL$", done.stdout, re.MULTILINE))
    return laps
