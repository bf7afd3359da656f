"""What the kernel's annotations expect of a program: parsed from declaration tags.

The tags are those that ``tools/testing/selftests/bpf/progs/bpf_misc.h`` writes and test_loader
reads: ``comment:test_expect_success``, ``comment:test_expect_msg=0=R1 min value``. The number
before a message keeps equal tags apart; newer kernels write it right after ``comment:``.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_bpf.errors import BpfError, near_matches
from pytest_bpf.kernel.sys.capabilities import NUMBERS as CAPABILITIES
from pytest_bpf.kinds.flags import ProgramFlags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

POINTER_VALUE = 0xCAFE4A
POINTER_VALUES = frozenset({POINTER_VALUE, 0xBADCAFE})
"""Return values that stand for any, of older and newer kernels: the program returns a pointer."""

TEST_DATA_LEN = 64
"""Bytes of data that a program is test-run with."""

_NAMED_VALUES = {
    "INT_MIN": -(2**31),
    "_INT_MIN": -(2**31),
    "POINTER_VALUE": POINTER_VALUE,
    "TEST_DATA_LEN": TEST_DATA_LEN,
}
FLAGS = {f"BPF_F_{flag.name}": int(flag) for flag in ProgramFlags}
"""Flags that ``__flag`` may name."""

ARCHITECTURES = {
    "X86_64": "x86_64",
    "ARM64": "aarch64",
    "RISCV64": "riscv64",
    "s390x": "s390x",
    "POWERPC64": "ppc64le",
}
"""``uname -m`` by the names of ``__arch_*``."""

LOAD_MODES = {"jited": True, "no_jited": False}
"""Whether the kernel must have a JIT, by the mode of ``__load_if_JITed`` and its opposite."""

_CAPABILITY_NAMES = {str(number): name for name, number in CAPABILITIES.items()}
_COUNTER = re.compile(r"comment:\d+[:_]")
_MESSAGE = re.compile(r"(test_\w+?)=\d+=(.*)", re.DOTALL)


class AnnotationError(BpfError, ValueError):
    """An annotation of a test in C that cannot be understood."""


@dataclass(frozen=True)
class Pattern:
    """One expected piece of text; ``{{...}}`` in it is an extended regular expression.

    ``next_line``: it must be on the line after that of the pattern before. ``absent``: it must not
    be there, between the patterns before and after it.
    """

    text: str
    next_line: bool = False
    absent: bool = False

    @property
    def regex(self) -> re.Pattern[str]:
        """The pattern as a regular expression of Python."""
        parts = re.split(r"\{\{(.*?)\}\}", self.text, flags=re.DOTALL)
        if any("{{" in part for part in parts[::2]):
            raise AnnotationError(f"the pattern {self.text!r} has '{{{{' and no '}}}}'")
        texts = (part if at % 2 else re.escape(part) for at, part in enumerate(parts))
        try:
            return re.compile("".join(texts).replace("[[:space:]]", r"\s"), re.MULTILINE)
        except re.error as error:
            raise AnnotationError(f"the pattern {self.text!r} is no expression: {error}") from None


@dataclass(frozen=True)
class Expectation:
    """What one program must do in one mode, privileged or not.

    ``messages`` are of the verifier's log, ``xlated`` and ``jited`` of the two dumps, ``stdout``
    and ``stderr`` of the program's streams after its run; ``retval`` is what a test run returns,
    None where it is not run.
    """

    failure: bool = False
    messages: tuple[Pattern, ...] = ()
    xlated: tuple[Pattern, ...] = ()
    jited: tuple[Pattern, ...] = ()
    stdout: tuple[Pattern, ...] = ()
    stderr: tuple[Pattern, ...] = ()
    retval: int | None = None


@dataclass(frozen=True)
class Annotations:
    """All annotations of one program.

    ``privileged`` and ``unprivileged`` are None where the program is not tested in that mode.
    ``auxiliary``: no test itself, but loaded along with each one, in these modes. ``linear_size``
    is that of the packet's first part, None for a packet in one part. ``kconfig`` are texts that
    the kernel's configuration must have.
    """

    privileged: Expectation | None = None
    unprivileged: Expectation | None = None
    auxiliary: frozenset[str] = frozenset()
    description: str = ""
    log_level: int = 0
    flags: int = 0
    cleared_flags: int = 0
    architectures: frozenset[str] = frozenset()
    capabilities: tuple[str, ...] = ()
    btf_path: str = ""
    load_modes: frozenset[str] = frozenset()
    linear_size: int | None = None
    kconfig: tuple[str, ...] = ()

    @property
    def is_test(self) -> bool:
        """Whether the program is a test in some mode."""
        return (self.privileged is not None or self.unprivileged is not None) and not self.auxiliary


@dataclass
class _Side:
    """The annotations of one mode, while they are read."""

    mentioned: bool = False
    failure: bool | None = None
    retval: int | None = None
    texts: dict[str, list[Pattern]] = field(default_factory=dict)
    next_line: dict[str, bool] = field(default_factory=dict)

    def add(self, kind: str, text: str, *, lines: bool, absent: bool = False) -> None:
        self.mentioned |= kind not in {"stdout", "stderr"}
        if absent:
            self.texts.setdefault(kind, []).append(Pattern(text, absent=True))
            return
        if lines and text == "...":
            self.next_line[kind] = False
            return
        follows = lines and self.next_line.get(kind, True) and bool(self.texts.get(kind))
        self.texts.setdefault(kind, []).append(Pattern(text, follows))
        self.next_line[kind] = True


class _Reader:
    """Reads the tags of one function, one after another."""

    def __init__(self) -> None:
        self.sides = {"": _Side(), "_unpriv": _Side()}
        self.values = Annotations()
        self.here = True

    def expect(self, side: str, *, failure: bool) -> None:
        chosen = self.sides[side]
        if chosen.failure is not None and chosen.failure is not failure:
            raise AnnotationError("success and failure are both expected")
        chosen.mentioned, chosen.failure = True, failure

    def retval(self, side: str, text: str) -> None:
        self.sides[side].mentioned = True
        value = _NAMED_VALUES.get(text)
        self.sides[side].retval = _number(text, "__retval") if value is None else value

    def jited(self, side: str, text: str) -> None:
        if not self.values.architectures:
            raise AnnotationError("__jited stands before __arch_*")
        if self.here:
            self.sides[side].add("jited", text, lines=True)

    def flag(self, text: str) -> None:
        name = text.removeprefix("!")
        value = FLAGS.get(name)
        if value is None:
            value = _number(name, "__flag", FLAGS)
        other = self.values.flags if text.startswith("!") else self.values.cleared_flags
        if value & other:
            raise AnnotationError(f"__flag({name}) and __flag(!{name}) are both there")
        if text.startswith("!"):
            self.values = replace(self.values, cleared_flags=self.values.cleared_flags | value)
        else:
            self.values = replace(self.values, flags=self.values.flags | value)

    def architecture(self, text: str) -> None:
        if text not in ARCHITECTURES:
            raise AnnotationError(f"there is no __arch({text}){near_matches(text, ARCHITECTURES)}")
        machine = ARCHITECTURES[text]
        self.here = machine == platform.machine()
        for side in self.sides.values():
            side.next_line.pop("jited", None)
        self.values = replace(self.values, architectures=self.values.architectures | {machine})

    def mode(self, text: str) -> None:
        if text not in LOAD_MODES:
            raise AnnotationError(f"there is no load_mode={text}{near_matches(text, LOAD_MODES)}")
        self.values = replace(self.values, load_modes=self.values.load_modes | {text})

    def capabilities(self, text: str) -> None:
        """Read names or numbers of capabilities: ``CAP_BPF|CAP_PERFMON`` or ``39|38``."""
        names = []
        for word in filter(None, re.split(r"[|, ]+", text)):
            name = _CAPABILITY_NAMES.get(word, word)
            if name not in CAPABILITIES:
                raise AnnotationError(
                    f"there is no capability {word!r}{near_matches(word, CAPABILITIES)}"
                )
            names.append(name)
        self.values = replace(self.values, capabilities=(*self.values.capabilities, *names))

    def set(self, **values: object) -> None:
        self.values = replace(self.values, **values)  # type: ignore[arg-type]


_EXACT: dict[str, Callable[[_Reader], None]] = {
    "test_expect_failure": lambda reader: reader.expect("", failure=True),
    "test_expect_success": lambda reader: reader.expect("", failure=False),
    "test_expect_failure_unpriv": lambda reader: reader.expect("_unpriv", failure=True),
    "test_expect_success_unpriv": lambda reader: reader.expect("_unpriv", failure=False),
    "test_auxiliary": lambda reader: reader.set(auxiliary=reader.values.auxiliary | {"privileged"}),
    "test_auxiliary_unpriv": lambda reader: reader.set(
        auxiliary=reader.values.auxiliary | {"unprivileged"}
    ),
}
_VALUED: dict[str, Callable[[_Reader, str], None]] = {
    "test_description": lambda reader, text: reader.set(description=text),
    "test_log_level": lambda reader, text: reader.set(log_level=_number(text, "__log_level")),
    "test_prog_flags": lambda reader, text: reader.flag(text),
    "test_retval": lambda reader, text: reader.retval("", text),
    "test_retval_unpriv": lambda reader, text: reader.retval("_unpriv", text),
    "test_btf_path": lambda reader, text: reader.set(btf_path=text),
    "test_arch": lambda reader, text: reader.architecture(text),
    "test_caps_unpriv": lambda reader, text: reader.capabilities(text),
    "load_mode": lambda reader, text: reader.mode(text),
    "test_kconfig": lambda reader, text: reader.set(kconfig=(*reader.values.kconfig, text)),
    "test_linear_size": lambda reader, text: reader.set(linear_size=_number(text, "__linear_size")),
}
_TEXTS: dict[str, tuple[str, str, bool]] = {
    f"test_{tag}{side}": (kind, side, lines)
    for side in ("", "_unpriv")
    for tag, kind, lines in (
        ("expect_msg", "messages", False),
        ("expect_not_msg", "messages", False),
        ("expect_xlated", "xlated", True),
        ("expect_stdout", "stdout", True),
        ("expect_stderr", "stderr", True),
    )
}
"""What a text is part of, in which mode, and whether it is compared line after line."""
_JITED = {"test_jited": "", "test_jited_unpriv": "_unpriv"}


def read_annotations(tags: Iterable[str]) -> Annotations | None:
    """Return what the declaration tags of a function say; None when none is the kernel's.

    Raises `AnnotationError` for a tag that is misspelt or contradicts another.
    """
    reader, ours = _Reader(), False
    for tag in tags:
        if not tag.startswith("comment:"):
            continue
        body = _COUNTER.sub("", tag, 1) if _COUNTER.match(tag) else tag.removeprefix("comment:")
        if body.startswith(("test_", "load_mode")):
            ours = True
            _read(reader, body)
    return _whole(reader) if ours else None


def _read(reader: _Reader, body: str) -> None:
    if body in _EXACT:
        _EXACT[body](reader)
        return
    name, _, text = body.partition("=")
    numbered = _MESSAGE.fullmatch(body)
    if numbered and (numbered[1] in _TEXTS or numbered[1] in _JITED):
        text = numbered[2]
    if name in _TEXTS:
        kind, side, lines = _TEXTS[name]
        reader.sides[side].add(kind, text, lines=lines, absent="not_msg" in name)
    elif name in _JITED:
        reader.jited(_JITED[name], text)
    elif name in _VALUED:
        _VALUED[name](reader, text)
    else:
        known = [*_EXACT, *_VALUED, *_TEXTS, *_JITED]
        raise AnnotationError(f"there is no annotation {name!r}{near_matches(name, known)}")


def _whole(reader: _Reader) -> Annotations:
    plain, without = reader.sides[""], reader.sides["_unpriv"]
    first = Expectation(
        bool(plain.failure),
        **{kind: tuple(texts) for kind, texts in plain.texts.items()},
        retval=plain.retval,
    )
    second = Expectation(
        first.failure if without.failure is None else without.failure,
        messages=tuple(without.texts.get("messages", first.messages)),
        xlated=tuple(without.texts.get("xlated", first.xlated)),
        jited=tuple(without.texts.get("jited", first.jited)),
        stdout=tuple(without.texts.get("stdout", first.stdout)),
        stderr=tuple(without.texts.get("stderr", first.stderr)),
        retval=first.retval if without.retval is None else without.retval,
    )
    return replace(
        reader.values,
        privileged=first if plain.mentioned or not without.mentioned else None,
        unprivileged=second if without.mentioned else None,
    )


def _number(text: str, annotation: str, names: Iterable[str] = ()) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise AnnotationError(
            f"{annotation}({text}): must be a number{near_matches(text, names) if names else ''}"
        ) from None


def mismatch(text: str, patterns: Iterable[Pattern]) -> str | None:
    r"""Return how a text misses the patterns, which must follow one another; None when it has them.

    One that must be absent is looked for between those before and after it.

    >>> mismatch("a\nb 7\n", [Pattern("a"), Pattern("b {{[0-9]+}}")])
    >>> mismatch("a\nb 7\n", [Pattern("a"), Pattern("7", absent=True)])
    "'7' is on line 2, and must not be there"
    """
    at, last_line = 0, -1
    absent: list[Pattern] = []
    for pattern in patterns:
        if pattern.absent:
            absent.append(pattern)
            continue
        match = pattern.regex.search(text, at)
        if match is None:
            return f"{pattern.text!r} is not there{_nearest(text, pattern, at)}"
        line = text.count("\n", 0, match.start())
        if pattern.next_line and last_line >= 0 and line != last_line + 1:
            return f"{pattern.text!r} is on line {line + 1}, not on line {last_line + 2}"
        if wrong := _present(text, absent, at, match.start()):
            return wrong
        at, last_line = match.end(), line
        absent.clear()
    return _present(text, absent, at, len(text))


def _present(text: str, absent: Iterable[Pattern], begin: int, end: int) -> str | None:
    for pattern in absent:
        if match := pattern.regex.search(text, begin, end):
            line = text.count("\n", 0, match.start()) + 1
            return f"{pattern.text!r} is on line {line}, and must not be there"
    return None


def _nearest(text: str, pattern: Pattern, at: int) -> str:
    import difflib

    if pattern.regex.search(text):
        return " after the one before it"
    lines = [line for line in text[at:].splitlines() if line.strip()]
    near = difflib.get_close_matches(pattern.text, lines, 1, 0.4)
    return f"; the nearest line is {near[0]!r}" if near else ""
