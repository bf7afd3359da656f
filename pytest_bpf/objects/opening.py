"""An object that is open and not loaded yet: set up, then handed to the kernel."""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Mapping  # noqa: TC003 (a dataclass field)
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_bpf.errors import BpfError, LoadError, UnavailableError
from pytest_bpf.kernel import libbpf
from pytest_bpf.kernel.btf import Btf
from pytest_bpf.objects import elf, verifier
from pytest_bpf.objects.globals import set_initial
from pytest_bpf.objects.names import unknown
from pytest_bpf.objects.program import program_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_bpf.kernel.btf import Type

LOG_SIZE = 1 << 16
"""Bytes for a program's statistics."""

FULL_LOG_SIZE = (1 << 24) - 1
"""Bytes for a whole log: the most that kernels before 6.4 take."""

RINGBUF = 27
"""``BPF_MAP_TYPE_RINGBUF``."""

SCHED_CLS = 3
"""``BPF_PROG_TYPE_SCHED_CLS``."""

TC_SECTIONS = ("tc/", "tcx/", "tc_ingress", "tc_egress", "classifier/")
"""Sections of tc programs that libbpf 1.1 does not know yet."""


@dataclass(frozen=True)
class Setup:
    """How an object is loaded, beyond its file; see `Object.load`."""

    globals: Mapping[str, Any] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)
    programs: frozenset[str] | None = None
    maps: Mapping[str, Any] = field(default_factory=dict)
    attach_to: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    log_level: int = libbpf.LOG_STATS
    log_size: int = LOG_SIZE

    def with_whole_log(self, level: int) -> Setup:
        """Return the same with the verifier's log instead of its statistics alone."""
        return replace(self, log_level=level | libbpf.LOG_STATS, log_size=FULL_LOG_SIZE)


class Opened:
    """libbpf's ``struct bpf_object *`` with what has to outlive its loading."""

    def __init__(self, path: Path, content: bytes, setup: Setup) -> None:
        self.path = path
        self.content = content
        self.setup = setup
        self.pointer = _open(path, content)
        try:
            found = libbpf.function("bpf_object__btf")(self.pointer)
            self.btf = Btf(found) if found else None
            self.programs = {_name("program", p): p for p in each("program", self.pointer)}
            self.maps = {_name("map", m): m for m in each("map", self.pointer)}
            self.event_types: dict[str, Type] = {}
            self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}
            self._set_up()
        except BaseException:
            self.close()
            raise

    def load(self) -> None:
        """Hand it to the kernel; raises what `Object.load` says."""
        with libbpf.messages() as said:
            try:
                libbpf.call("bpf_object__load", self.pointer)
            except OSError as error:
                raise self._refused(error, said) from None

    def log(self, program: str) -> str:
        """Return what the verifier has said of a program."""
        return self._logs[program].value.decode(errors="replace")

    def whole_log(self, program: str, level: int) -> str:
        """Load the same once more for the whole log of one program, and let it go."""
        again = Opened(self.path, self.content, self.setup.with_whole_log(level))
        try:
            with libbpf.messages():
                libbpf.function("bpf_object__load")(again.pointer)
            return again.log(program)
        finally:
            again.close()

    def loaded_programs(self) -> dict[str, int]:
        """Return libbpf's pointers of the programs that were loaded, by name."""
        autoload = libbpf.function("bpf_program__autoload")
        return {name: pointer for name, pointer in self.programs.items() if autoload(pointer)}

    def created_maps(self) -> dict[str, int]:
        """Return libbpf's pointers of the maps that exist in the kernel, by name."""
        fd = libbpf.function("bpf_map__fd")
        return {name: pointer for name, pointer in self.maps.items() if fd(pointer) >= 0}

    def map_type(self, pointer: int, which: str) -> Type | None:
        """Return a map's declared type of "key" or "value", None when there is none."""
        type_id = libbpf.call(f"bpf_map__btf_{which}_type_id", pointer)
        return self.btf.type(type_id) if self.btf and type_id else None

    def close(self) -> None:
        """Let libbpf free it, with the programs and maps that it made; only once."""
        pointer, self.pointer = self.pointer, 0
        if pointer:
            libbpf.function("bpf_object__close")(pointer)

    # -- setting up --------------------------------------------------------------------------

    def _set_up(self) -> None:
        setup, where = self.setup, self.path.name
        for name in (*(setup.programs or ()), *setup.attach_to):
            if name not in self.programs:
                raise unknown("program", name, where, self.programs)
        for name in (*setup.max_entries, *setup.maps):
            if name not in self.maps:
                raise unknown("map", name, where, self.maps)
        for name, pointer in self.programs.items():
            self._set_up_program(name, pointer)
        for name, pointer in self.maps.items():
            self._set_up_map(name, pointer)
        if setup.globals and self.btf is None:
            raise LoadError(f"{where}: has no BTF to find global variables in; compile it with -g")
        if setup.globals and self.btf is not None:
            pointers = {section(n): m for n, m in self.maps.items() if internal(m)}
            set_initial(where, self.btf.sections(), pointers, setup.globals)

    def _set_up_program(self, name: str, pointer: int) -> None:
        setup = self.setup
        if setup.programs is not None:
            libbpf.call("bpf_program__set_autoload", pointer, name in setup.programs)
        if self._section(name).startswith(TC_SECTIONS) and program_type(pointer) == "unspec":
            libbpf.call("bpf_program__set_type", pointer, SCHED_CLS)
        if name in setup.attach_to:
            target, function = setup.attach_to[name]
            libbpf.call("bpf_program__set_attach_target", pointer, target.fd, function.encode())
        log = self._logs[name] = ctypes.create_string_buffer(setup.log_size)
        libbpf.call("bpf_program__set_log_level", pointer, setup.log_level)
        libbpf.call("bpf_program__set_log_buf", pointer, log, len(log))

    def _set_up_map(self, name: str, pointer: int) -> None:
        setup, where = self.setup, f"{self.path.name}: map {name!r}"
        if name in setup.max_entries:
            wanted = setup.max_entries[name]
            if not 0 < wanted < 2**32:
                raise LoadError(f"{where}: max_entries={wanted}; it takes 1 to {2**32 - 1}")
            libbpf.call("bpf_map__set_max_entries", pointer, wanted)
        if name in setup.maps:
            try:
                libbpf.call("bpf_map__reuse_fd", pointer, setup.maps[name].fd)
            except OSError as error:
                raise LoadError(f"{where}: cannot be shared: {error.strerror}") from None
        if libbpf.call("bpf_map__type", pointer) == RINGBUF:
            declared = self.map_type(pointer, "value")
            if declared is not None and declared.size:
                self.event_types[name] = declared
            for which in ("key", "value"):  # a ring buffer has neither; the type is for readers
                libbpf.call(f"bpf_map__set_{which}_size", pointer, 0)

    # -- refusals ----------------------------------------------------------------------------

    def _refused(self, error: OSError, said: list[str]) -> BpfError:
        code = error.errno or 0
        if code in {errno.EPERM, errno.EACCES} and not libbpf.privileged():
            return UnavailableError(
                "loading BPF programs needs CAP_BPF or CAP_SYS_ADMIN, which this process does not "
                "have; run pytest as root (sudo -E)"
            )
        rejected = next((found for line in said if (found := _REJECTED.search(line))), None)
        if rejected is None:
            failures = [line for line in said if "failed" in line or "error" in line]
            why = (failures or said or [libbpf.reason(code)])[0]
            return LoadError(f"{self.path}: cannot be loaded: {why}", code)
        name = rejected["name"]
        section_ = self._section(name)
        log = self.whole_log(name, 1)
        if not verifier.reason(log):
            return LoadError(
                f"{self.path}: the kernel refuses program {name!r} ({section_}) before verifying "
                f"it: {libbpf.reason(code)}; this kernel may lack that kind of program",
                code,
            )
        lines = list(elf.source_lines(self.content))
        return verifier.rejection(self.path, name, section_, code=code, log=log, known=lines)

    def _section(self, program: str) -> str:
        raw: bytes = libbpf.call("bpf_program__section_name", self.programs[program])
        return raw.decode()


_REJECTED = re.compile(r"prog '(?P<name>.+?)': BPF program load failed")


class _OpenOptions(ctypes.Structure):
    """``struct bpf_object_open_opts`` up to the only member in use."""

    _fields_ = (("sz", ctypes.c_size_t), ("object_name", ctypes.c_char_p))


def _open(path: Path, content: bytes) -> int:
    options = _OpenOptions(ctypes.sizeof(_OpenOptions), path.name.partition(".")[0].encode())
    arguments = (content, len(content), ctypes.byref(options))
    with libbpf.messages() as said:
        try:
            return int(libbpf.call("bpf_object__open_mem", *arguments))
        except OSError as error:
            why = said[-1] if said else libbpf.reason(error.errno or 0)
            raise LoadError(f"{path}: libbpf cannot open it: {why}", error.errno or 0) from None


def each(what: str, pointer: int) -> Iterator[int]:
    """Yield libbpf's pointers of an object's programs or maps."""
    following = libbpf.function(f"bpf_object__next_{what}")
    current = following(pointer, None)
    while current:
        yield current
        current = following(pointer, current)


def internal(pointer: int) -> bool:
    """Say whether a map holds global variables."""
    return bool(libbpf.call("bpf_map__is_internal", pointer))


def section(map_name: str) -> str:
    """Return the section of an internal map: ``.rodata`` of ``count.rodata``, ``.data.hot``."""
    return map_name[map_name.index(".") :] if "." in map_name else map_name


def _name(what: str, pointer: int) -> str:
    name: bytes = libbpf.call(f"bpf_{what}__name", pointer)
    return name.decode()
