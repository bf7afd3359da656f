"""The documentation as a site: ``make docs`` writes it to build/site."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

import pytest_bpf

if TYPE_CHECKING:
    from sphinx.application import Sphinx

REPOSITORY = "https://github.com/pytest-bpf/pytest-bpf/"

project = "pytest-bpf"
version = release = installed(project)
copyright = "the pytest-bpf developers"  # noqa: A001 (Sphinx's name)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["picture.py"]
default_role = "py:obj"
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = project
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False


OUTSIDE = re.compile(
    r"\]\((?:\.\./)+((?:bpf_examples|tests|benchmarks|examples)/[^)]*|[A-Z]+(?:\.md)?(?:#[^)]*)?)\)"
)
"""A link to a file of the repository that is no page of the site."""


def lead_outside(_: Sphinx, __: str, source: list[str]) -> None:
    """Let links to files that are no pages lead to the repository."""
    source[0] = OUTSIDE.sub(rf"]({REPOSITORY}blob/main/\1)", source[0])


def add_public_names(_: Sphinx, name: str, source: list[str]) -> None:
    """Append a directive for each public name to the page of the API."""
    if name != "reference/api":
        return
    for public in sorted(pytest_bpf.__all__):
        value = getattr(pytest_bpf, public)
        if inspect.ismodule(value):
            source[0] += f".. automodule:: pytest_bpf.{public}\n   :members:\n\n"
        elif inspect.isclass(value):
            source[0] += f".. autoclass:: pytest_bpf.{public}\n   :members:\n\n"
        elif callable(value):
            source[0] += f".. autofunction:: pytest_bpf.{public}\n\n"


def setup(app: Sphinx) -> None:
    """Tell Sphinx what is done with a page that was read."""
    app.connect("source-read", add_public_names)
    app.connect("source-read", lead_outside)
