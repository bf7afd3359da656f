"""A folder of inputs that is kept from session to session: what reached something, what failed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_bpf.errors import ValueTypeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

LARGEST = 1 << 20
"""Bytes of the largest file that is an input."""


@dataclass(frozen=True)
class Failure:
    """Inputs that failed; the source, and the functions of a module that were asked, if known."""

    inputs: tuple[bytes, ...]
    program: str = ""
    source: str = ""
    module: str = ""
    invariant: str = ""
    after: str = ""


def read_failure(path: Path) -> Failure:
    """Return a failure that was kept; `ValueTypeError` for a file that is none."""
    if not path.is_file():
        raise ValueTypeError(f"corpus: {path} is no file with inputs; remove it")
    try:
        kept = json.loads(path.read_text("utf-8"))
        if isinstance(kept, list):  # what there was before more was known
            kept = {"inputs": kept}
        inputs = tuple(bytes.fromhex(text) for text in kept.pop("inputs"))
        return Failure(inputs, **{name: str(value) for name, value in kept.items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueTypeError(f"corpus: {path} is damaged ({error}); remove it") from None


class Corpus:
    """The inputs of one program: ``<program>-<hash>.bin``, and ``<program>-<hash>.failure.json``.

    Raises `ValueTypeError` when its folder cannot be one.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self._program = folder, program
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueTypeError(f"corpus {folder} is no folder: {error.strerror}") from None

    def inputs(self) -> list[bytes]:
        """Return the inputs, in the order of their names."""
        result = []
        for path in sorted(self.folder.glob(f"{self._program}-*.bin")):
            if not path.is_file():
                raise ValueTypeError(f"corpus: {path} is no file with an input; remove it")
            if path.stat().st_size > LARGEST:
                raise ValueTypeError(
                    f"corpus: {path} is {path.stat().st_size} bytes, an input is at most {LARGEST}"
                )
            result.append(path.read_bytes())
        return result

    def failures(self) -> Iterator[list[bytes]]:
        """Yield the inputs of each failure that is kept; each is a sequence."""
        for path in sorted(self.folder.glob(f"{self._program}-*.failure.json")):
            yield list(read_failure(path).inputs)

    def keep(self, inputs: Sequence[bytes]) -> None:
        """Keep these inputs, and no others."""
        names = {self._name(data): data for data in inputs}
        for path in self.folder.glob(f"{self._program}-*.bin"):
            if path.name not in names:
                path.unlink()
        for name, data in names.items():
            (self.folder / name).write_bytes(data)

    def keep_failure(self, sequence: Sequence[bytes], about: Mapping[str, str]) -> Path:
        """Keep the inputs of a failure and what is known of it, and return their file."""
        name = self._name(b"".join(sequence)).replace(".bin", ".failure.json")
        path = self.folder / name
        kept = {**about, "program": self._program, "inputs": [data.hex() for data in sequence]}
        path.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        return path

    def _name(self, data: bytes) -> str:
        return f"{self._program}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
