"""What became of mutants, as a page of HTML: one file, without a script and without a network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>pytest-bpf mutate</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; }}
table {{ border-collapse: collapse; }}
td, th {{ border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: left; }}
td {{ vertical-align: top; }}
pre {{ margin: .3rem 0; }}
tr.survived {{ background: #fdd; }}
tr.rejected {{ color: #777; }}
</style>
<h1>Score {score:.0f} %</h1>
<p>{counts}</p>
<table>
<tr><th>place<th>mistake<th>state<th>first test that failed
{rows}
</table>
</html>
"""


def page(score: float, counts: Mapping[str, int], mutants: Sequence[Mapping[str, object]]) -> str:
    """Return a page about mutants, those that survived first."""
    ordered = sorted(mutants, key=lambda one: one["state"] != "survived")
    numbers = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    return PAGE.format(score=score, counts=numbers, rows="\n".join(map(_row, ordered)))


def _row(mutant: Mapping[str, object]) -> str:
    text = {name: escape(str(value)) for name, value in mutant.items()}
    shown = " open" if mutant["state"] == "survived" else ""
    return (
        f'<tr class="{text["state"].replace(" ", "-")}"><td>{text["file"]}:{text["line"]}'
        f"<td>{text['what']}<details{shown}><summary>what changed</summary>"
        f"<pre>{text['diff']}</pre></details>"
        f"<td>{text['state']}<td>{text['by']}"
    )
