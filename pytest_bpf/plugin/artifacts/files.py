"""What is kept of a test, as files by name: for a person who sees nothing else of it."""

from __future__ import annotations

import gzip
import json
import os
import platform
import shlex
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, VerifierError
from pytest_bpf.kinds.maps import EVENT_MAPS, KEYLESS
from pytest_bpf.plugin.artifacts.looking import MOST_BYTES, UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pytest

    from pytest_bpf.loader import Loader
    from pytest_bpf.objects import Map, Object, Program
    from pytest_bpf.plugin.artifacts.evidence import Evidence

MOST_OF_TEST, MOST_OF_FILE = 16 << 20, 4 << 20
"""Bytes that are kept of a test, and of one file of it."""

MOST_ELEMENTS = 10_000
"""Elements of a map, and events of a buffer, that are kept."""

PACKAGES = ("pytest", "pytest-bpf", "pytest-xdist", "hypothesis", "numpy", "pyroute2")
"""Packages whose versions are part of the environment."""

LEFT_OUT = ("bpf_artifacts", "bpf_artifacts_keep", "bpf_report", "bpf_save_baseline")
"""Options that say where results go, and nothing about how a test runs."""

Files = dict[str, bytes]


class Gathering:
    """Files in the order in which they matter, cut off at a limit, and notes of what is missing."""

    def __init__(self) -> None:
        self.files: Files = {}
        self._room = MOST_OF_TEST
        self._notes: list[str] = []

    def add(self, name: str, make: Callable[[], str | bytes | None]) -> None:
        """Keep what ``make`` returns, when it returns something; an error is a note."""
        try:
            content = make()
        except Exception as error:  # noqa: BLE001 (one file must not lose the others)
            self._notes.append(f"{name}: not there: {error}".replace("\n", " "))
            return
        if not content:
            return
        raw = content.encode(errors="replace") if isinstance(content, str) else content
        if len(raw) > MOST_OF_FILE:
            self._notes.append(f"{name}: the last {MOST_OF_FILE} of {len(raw)} bytes")
            raw = raw[-MOST_OF_FILE:]
        if len(raw) > self._room:
            self._notes.append(f"{name}: left out, {len(raw)} bytes: a test has {MOST_OF_TEST}")
            return
        self._room -= len(raw)
        again, place = 2, name
        while place in self.files:  # two objects of one name
            place, again = f"{name}.{again}", again + 1
        self.files[place] = raw

    def done(self) -> Files:
        """Return the files, with the notes as one of them."""
        if self._notes:
            self.files["notes.txt"] = "\n".join([*self._notes, ""]).encode()
        return self.files


def gather(
    item: pytest.Item,
    report: pytest.TestReport,
    error: BaseException | None,
    evidence: Evidence | None,
    *,
    loaders: Sequence[Loader],
    packets: Iterable[tuple[str, Callable[[], bytes]]] = (),
) -> Files:
    """Return what is kept of a test, while what it loaded is still there."""
    gathering = Gathering()
    gathering.add("report.txt", lambda: _report(report))
    gathering.add("reproduce.txt", lambda: reproduce(item.config, item.nodeid))
    gathering.add("environment.json", lambda: _json(_environment(item.config)))
    if isinstance(error, VerifierError):
        gathering.add(f"programs/{error.program}.rejected.log", lambda: error.log)
    if evidence is not None:
        gathering.add("state.json", lambda: _json(as_plain(evidence)))
        gathering.add("printk.txt", lambda: "\n".join(evidence.printed))
    for name, make in packets:
        gathering.add(name, make)
    for loader in loaders:
        for obj in loader.objects:
            if not obj.closed:
                _object(gathering, obj)
    gathering.add("console.txt", lambda: _console(item.config))
    return gathering.done()


def _object(gathering: Gathering, obj: Object) -> None:
    label = obj.path.name.partition(".")[0]
    for name, entry in obj.maps.items():
        gathering.add(f"maps/{label}.{name}.json", partial(_map, entry))
    for name, program in obj.programs.items():
        at = f"programs/{label}.{name}"
        gathering.add(f"{at}.xlated.txt", partial(_dump, program, "xlated"))
        gathering.add(f"{at}.jited.txt", partial(_dump, program, "jited"))
        gathering.add(f"{at}.verifier.log", partial(program.verifier_log, 2))
    gathering.add(f"objects/{label}.bpf.o", lambda: obj.content)
    if obj.preprocess is not None:
        gathering.add(f"objects/{label}.i.gz", partial(_packed_source, obj.preprocess))


def _report(report: pytest.TestReport) -> str:
    parts = [f"{report.nodeid}: {report.outcome} in its {report.when}", "", report.longreprtext]
    for title, text in report.sections:
        parts += ["", f"---- {title} ----", text]
    return "\n".join([*parts, ""])


def _dump(program: Program, name: str) -> str:
    return str(getattr(program, name))


def _packed_source(preprocess: Callable[[], bytes]) -> bytes:
    return gzip.compress(preprocess(), 1, mtime=0)


def _map(entry: Map) -> str | None:
    """Return a map's elements as JSON; of an event buffer those that nobody has read."""
    about: dict[str, Any] = {"name": entry.name, "type": entry.type}
    if entry.type in EVENT_MAPS:
        if entry.reader is None and entry.type != "ringbuf":
            return None
        reader = entry.reader or entry.events()
        pending = reader.read(timeout=0) if not reader.closed else []
        about |= {"read": reader.consumed - len(pending)}
        about["unread"] = [plain(event) for event in islice(pending, MOST_ELEMENTS)]
        return _json(about)
    if entry.type in KEYLESS | UNREADABLE:
        return None
    if entry.max_entries * (entry.key_size + entry.value_size) > MOST_BYTES:
        return _json({**about, "left_out": f"it may have {entry.max_entries} elements"})
    contents = entry.copy()
    decode = entry.layout.decode_key, entry.layout.decode_value
    rows = [
        [plain(decode[0](key)), plain(decode[1](value))]
        for key, value in islice(contents.raw_items(), MOST_ELEMENTS)
    ]
    return _json({**about, "elements": len(contents), "first": rows})


def plain(value: Any) -> Any:
    """Return a value of C as JSON has it: records as objects, bytes as hexadecimal."""
    if hasattr(value, "_asdict"):
        return {name: plain(member) for name, member in value._asdict().items()}
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (int, float)):
        name = getattr(value, "name", None)
        return name if isinstance(name, str) else value
    return str(value)


def as_plain(evidence: Evidence) -> dict[str, Any]:
    """Return evidence as JSON has it; packets are hexadecimal."""
    return {part.name: _plain_part(getattr(evidence, part.name)) for part in fields(evidence)}


def _plain_part(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain_part(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, tuple):
        return [_plain_part(each) for each in value]
    if hasattr(value, "data") and hasattr(value, "first"):
        return value.data.hex()
    return plain(value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def reproduce(config: pytest.Config, test: str) -> str:
    """Return the command that runs one test as it ran here."""
    words = ["python", "-m", "pytest", test]
    for name, value in sorted(vars(config.option).items()):
        if not name.startswith("bpf_") or name in LEFT_OUT or value in (None, False, []):
            continue
        flag = f"--{name.replace('_', '-')}"
        several = value if isinstance(value, (list, tuple)) else [value]
        words += [flag if each is True else f"{flag}={each}" for each in several]
    return shlex.join(words) + "\n"


def _environment(config: pytest.Config) -> dict[str, Any]:
    """Return versions and what was chosen: no variables, no names of hosts or users."""
    from pytest_bpf.budgets.environment import here
    from pytest_bpf.kernel.sys import libbpf
    from pytest_bpf.reports.header import header

    about = asdict(here("clock", ""))
    about.pop("instrument")
    with suppress(BpfError):
        about["libbpf"] = libbpf.version()
    with suppress(BpfError):
        about["summary"] = header()
    about["python"] = platform.python_version()
    about["packages"] = dict(_versions())
    about["kernel_of_session"] = getattr(config, "workerinput", {}).get("bpf_kernel", "host")
    return about


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _console(config: pytest.Config) -> str:
    """Return the kernel's log, of a machine that the session made: that of a host is its own."""
    if getattr(config, "workerinput", {}).get("bpf_kernel", "host") == "host":
        return ""
    lines = []
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            while True:
                head, _, text = os.read(fd, 8192).decode(errors="replace").partition(";")
                lines.append(f"[{int(head.split(',')[2]) / 1e6:12.6f}] {text.splitlines()[0]}")
    finally:
        os.close(fd)
    return "\n".join(lines)
