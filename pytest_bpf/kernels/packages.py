"""The kernels that a distribution's packages offer, and which of them a user means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from pytest_bpf.errors import BpfError, near_matches

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = re.compile(
    r"linux-image-(?:unsigned-)?(?P<release>(?P<version>\d+(?:\.\d+)+)(?P<more>[-+~.\w]*?)"
    r"-(?P<flavour>[a-z][a-z0-9-]*?))(?P<unsigned>-unsigned)?"
)
"""As in Debian's ``linux-image-6.1.0-57-rt-amd64``, Ubuntu's ``linux-image-6.8.0-45-generic``."""

PLAIN = {"amd64": "", "arm64": "", "generic": ""}
"""Flavours that need not be named."""


@dataclass(frozen=True)
class KernelPackage:
    """A package with a kernel: its ``name``, the kernel's ``release``, ``version``, ``flavour``.

    The flavour is empty for the usual one, else ``"rt"``, ``"cloud"``, ``"lowlatency"``, ...
    """

    name: str
    release: str
    version: tuple[int, ...]
    flavour: str

    def __str__(self) -> str:
        numbers = ".".join(map(str, self.version[:2]))
        return f"debian:{numbers}{'-' * bool(self.flavour)}{self.flavour}"


def parse(names: Iterable[str]) -> list[KernelPackage]:
    """Return the packages that hold kernels to boot, the newest first.

    >>> [str(package) for package in parse(["linux-image-6.1.0-57-rt-amd64", "linux-image-amd64"])]
    ['debian:6.1-rt']
    """
    packages = []
    for name in names:
        match = NAME.fullmatch(name)
        if not match or match["unsigned"] or match["flavour"].endswith(("-dbg", "-template")):
            continue
        numbers = tuple(map(int, re.findall(r"\d+", match["version"] + match["more"])))
        flavour = re.sub(r"-?(amd64|arm64)$", "", PLAIN.get(match["flavour"], match["flavour"]))
        packages.append(KernelPackage(name, match["release"], numbers, flavour))
    return sorted(packages, key=lambda package: (package.version, package.name), reverse=True)


def choose(text: str, names: Iterable[str]) -> KernelPackage:
    """Return the newest package that ``text`` means.

    It is the beginning of a version (``6.12``, ``6.1.0-57``) or a range (``>=6.6``, ``<6.10,>6``),
    and after a hyphen the flavour (``6.1-rt``). Raises `BpfError` with what there is.
    """
    packages = parse(names)
    wanted, flavour = text, ""
    for name in {package.flavour for package in packages} - {""}:
        if text.endswith(f"-{name}"):
            wanted, flavour = text.removesuffix(f"-{name}"), name
    offered = [package for package in packages if package.flavour == flavour]
    matching = [package for package in offered if _matches(wanted, package)]
    if matching:
        return matching[0]
    known = list(dict.fromkeys(map(str, packages)))
    if not known:
        raise BpfError(
            f"no kernel 'debian:{text}': apt knows no kernels; run 'apt-get update', or give a "
            "path to an image"
        )
    near = near_matches(f"debian:{text}", known)
    raise BpfError(
        f"no kernel 'debian:{text}' in the package lists{near}; there are {', '.join(known[:12])}"
        f"{' and others (pytest-bpf kernels)' if len(known) > 12 else ''}"
    )


def _matches(wanted: str, package: KernelPackage) -> bool:
    if wanted[:1] in "<>=!~" and wanted:
        try:
            return ".".join(map(str, package.version[:3])) in SpecifierSet(wanted)
        except InvalidSpecifier:
            raise BpfError(
                f"{wanted!r} is no range of versions; write '>=6.6' or '>=6.1,<6.10'"
            ) from None
    return bool(re.match(rf"{re.escape(wanted)}(?!\d)", package.release))
