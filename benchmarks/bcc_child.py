"""Run by the system's Python, which has BCC: a compile and a load for each line it is sent.

It answers with milliseconds, one line each, and ends with its standard input.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def main() -> None:
    try:
        from bcc import BPF  # type: ignore[import-not-found]  # noqa: PLC0415 (not everywhere)
    except ImportError as error:
        sys.exit(str(error))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what BCC itself prints is no answer
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    for _ in sys.stdin:
        start = time.perf_counter()
        loaded = BPF(text=text)
        loaded.load_func("count", BPF.XDP)
        print((time.perf_counter() - start) * 1000, file=answers)
        loaded.cleanup()


if __name__ == "__main__":
    main()
