"""``python docs/lint_rules.py``: write docs/reference/lint-rules.md from the table of rules."""

from pathlib import Path

from pytest_bpf.lint import RULES, Rule

HEAD = """\
# Lint rules

What [`pytest-bpf lint`](../how-to/lint.md) looks for. This page is made from the rules:
`python docs/lint_rules.py`.

The suite of a rule measured what the advice gains. Rules that are not on by default are often right
to be broken: `--select all` runs them, too.
"""


def page() -> str:
    """Return the text of the page."""
    return HEAD + "".join(map(section, RULES.values()))


def section(rule: Rule) -> str:
    """Return what the page says of one rule."""
    text = f"\n## {rule.name}\n\nFinds {rule.finds}."
    if not rule.default:
        text += " Not on by default."
    if rule.suite:
        text += f" Measured in [{rule.suite}](../../bpf_examples/{rule.suite}/README.md)."
    return f"{text}\n"


if __name__ == "__main__":
    (Path(__file__).parent / "reference" / "lint-rules.md").write_text(page(), encoding="utf-8")
