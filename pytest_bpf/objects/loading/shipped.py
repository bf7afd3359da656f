"""Open a BPF program that this package ships as source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_bpf.compile import compile_source
from pytest_bpf.objects.loading.open_object import open_file

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_bpf.objects.loading.open_object import OpenObject


def open_shipped(source: Path, compiler: str | None = None) -> OpenObject:
    """Compile ``source`` and open the object; ``compiler`` is as for `compile_source`.

    Raises what `compile_source` raises.
    """
    built = compile_source(source, compiler=compiler).object
    return open_file(built, trusted=True, source=source)
