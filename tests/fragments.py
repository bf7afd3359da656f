"""``python -m tests.fragments``: check the news fragments of ``changelog/``.

Each is one Markdown file, ``ISSUE.NAME.md``, with one paragraph for the user.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "changelog"
NAME = re.compile(r"\d+\.[a-z0-9]+(-[a-z0-9]+)*\.md")


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the fragments, a sentence each."""
    sentences = []
    for path in sorted(folder.iterdir()):
        text = path.read_text(encoding="utf-8").strip()
        if not NAME.fullmatch(path.name):
            sentences.append(f"{path.name}: a fragment is named ISSUE.NAME.md, as 12.values.md")
        if not text:
            sentences.append(f"{path.name} is empty: say what changed for the user")
        elif text.startswith("#") or "\n\n" in text:
            sentences.append(f"{path.name}: a fragment is one paragraph, without a heading")
    return sentences


if __name__ == "__main__":
    sys.exit("\n".join(problems(FOLDER)) or 0)
