"""Result files: what was measured, where, as sorted JSON that can be committed and compared.

A baseline is one, and so is the JSON report; ``results.schema.json`` beside this module is their
schema. A figure is found by the environment it was measured in, the test, the subject and the
metric.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpf.budgets.environment import Environment
from pytest_bpf.costs.figure import METRICS, Figure
from pytest_bpf.errors import BpfError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "pytest-bpf results"
SCHEMA = 1

SCHEMA_FILE = Path(__file__).parent / "results.schema.json"


class ResultFileError(BpfError):
    """A result file that cannot be read or written."""


@dataclass(frozen=True, order=True)
class Key:
    """What a figure is found by; ``test`` is the node id without the kernel."""

    environment: Environment
    test: str
    subject: str
    metric: str


@dataclass(frozen=True)
class Results:
    """The content of a result file.

    ``allowed`` holds, by metric, the change that is allowed, as it is written; ``findings`` are
    those of a report, as plain values, and so are ``claims``. ``sources`` has, by test and subject,
    the file that a program is of; it is in no file.
    """

    figures: Mapping[Key, Figure] = field(default_factory=dict)
    allowed: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    claims: tuple[Mapping[str, Any], ...] = ()
    sources: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False)

    def merged(self, newer: Mapping[Key, Figure]) -> Results:
        """Return the same with newer figures in the place of older ones."""
        return replace(self, figures={**self.figures, **newer})


def read(path: Path) -> Results:
    """Read a result file; raises `ResultFileError` for what is none, or of a newer schema."""
    try:
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ResultFileError(f"{path} cannot be read: {why}") from None
    return parse(written, str(path))


def parse(written: str, path: str = "") -> Results:
    """Read the text of a result file, as `read` does."""
    try:
        content = json.loads(written)
    except ValueError as error:
        raise ResultFileError(
            f"{path} is not JSON ({error}): restore it, or delete it and save anew"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultFileError(f"{path} is JSON, but no result file of pytest-bpf")
    schema = content.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise ResultFileError(
            f"{path} has schema {schema}, and this pytest-bpf knows up to {SCHEMA}: "
            "upgrade pytest-bpf"
        )
    try:
        return _results(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultFileError(
            f"{path} is not as its schema says ({type(error).__name__}: {error}): "
            "restore it, or delete it and save anew"
        ) from None


def write(path: Path, results: Results) -> None:
    """Write a result file, whole or not at all; raises `ResultFileError`."""
    write_text(path, text(results))


def text(results: Results) -> str:
    """Return the JSON of a result file: sorted, one figure a line."""
    environments: dict[Environment, dict[str, dict[str, dict[str, Any]]]] = {}
    for key, figure in sorted(results.figures.items()):
        tests = environments.setdefault(key.environment, {})
        subjects = tests.setdefault(key.test, {}).setdefault(key.subject, {})
        subjects[key.metric] = _as_dict(figure)
    content: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA}
    content["allowed"] = dict(sorted(results.allowed.items()))
    content["environments"] = [
        {**asdict(environment), "tests": tests} for environment, tests in environments.items()
    ]
    for name, several in (("findings", results.findings), ("claims", results.claims)):
        if several:
            content[name] = list(several)
    return _dumped(content) + "\n"


def write_text(path: Path, content: str) -> None:
    """Write a file, whole or not at all; raises `ResultFileError`."""
    try:
        check_writable(path)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            try:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                Path(file.name).replace(path)
            except BaseException:
                with suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        raise ResultFileError(f"{path} cannot be written: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Make a file's folder; raise `ResultFileError` when nothing can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ResultFileError(
            f"{path} cannot be written: {path.parent}: {error.strerror}"
        ) from None
    if path.is_dir():
        raise ResultFileError(f"{path} cannot be written: it is a folder")


def _results(content: Mapping[str, Any]) -> Results:
    figures = {}
    for environment in content["environments"]:
        tests = environment["tests"]
        where = Environment(**{name: v for name, v in environment.items() if name != "tests"})
        for test, subjects in tests.items():
            for subject, metrics in subjects.items():
                for metric, written in metrics.items():
                    key = Key(where, test, subject, metric)
                    figures[key] = _figure(key, written)
    allowed = {str(name): str(change) for name, change in content.get("allowed", {}).items()}
    findings, claims = (tuple(content.get(name, ())) for name in ("findings", "claims"))
    return Results(figures, allowed, findings, claims)


def _figure(key: Key, written: Mapping[str, Any]) -> Figure:
    value = written["value"]
    if value is not None and not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no number")
    return Figure(
        metric=key.metric,
        subject=key.subject,
        value=value,
        lower=written.get("lower", value),
        upper=written.get("upper", value),
        instrument=key.environment.instrument,  # type: ignore[arg-type]
        samples=tuple(written.get("samples", ())),
        reference=tuple(written.get("reference", ())),
        why_not=written.get("why_not", ""),
    )


def _as_dict(figure: Figure) -> dict[str, Any]:
    if figure.value is None:
        return {"value": None, "why_not": figure.why_not}
    written: dict[str, Any] = {
        "value": _number(figure.value),
        "unit": METRICS[figure.metric].unit if figure.metric in METRICS else "",
    }
    for name, bound in (("lower", figure.lower), ("upper", figure.upper)):
        if bound != figure.value:
            written[name] = None if bound is None else _number(bound)
    for name, samples in (("samples", figure.samples), ("reference", figure.reference)):
        if samples:
            written[name] = [_number(sample) for sample in samples]
    return written


def _number(value: float) -> float:
    """Return a number with six digits, a whole one without a fraction."""
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _dumped(value: object, indent: str = "") -> str:
    """Return JSON with what holds no further mapping on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
        if "value" in value:
            return json.dumps(value, ensure_ascii=False)
        lines = [
            f"{json.dumps(k, ensure_ascii=False)}: {_dumped(v, inner)}" for k, v in value.items()
        ]
        return _joined("{", lines, "}", indent)
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return _joined("[", [_dumped(v, inner) for v in value], "]", indent)
    return json.dumps(value, ensure_ascii=False)


def _joined(start: str, lines: list[str], end: str, indent: str) -> str:
    inside = ",\n".join(f"{indent}  {line}" for line in lines)
    return f"{start}\n{inside}\n{indent}{end}"
