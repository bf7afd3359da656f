"""Result files: what was measured, where, as sorted JSON that can be committed and compared.

A baseline is one, and so is the JSON report; ``results.schema.json`` beside this module is their
schema. A figure is found by the environment it was measured in, the test, the subject and the
metric.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pytest_bpf.budgets import shape
from pytest_bpf.budgets.annotated import AnnotatedFile
from pytest_bpf.budgets.environment import Environment
from pytest_bpf.budgets.outcomes import Outcome
from pytest_bpf.budgets.told import claims_of, findings_of
from pytest_bpf.costs.figures.figure import METRICS, Figure, Instrument
from pytest_bpf.errors import BpfError, near_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "pytest-bpf results"
SCHEMA = 1

BOUNDS, SERIES = ("lower", "upper"), ("samples", "reference")
"""Members of a figure: numbers, and arrays of numbers."""

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
    those of a report, as plain values, and so are ``claims``; ``tests`` say how they went,
    ``annotated`` what lines of C did.
    ``sources`` has, by test and subject, the file that a program is of; it is in no file.
    """

    figures: Mapping[Key, Figure] = field(default_factory=dict)
    allowed: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Mapping[str, Any], ...] = ()
    claims: tuple[Mapping[str, Any], ...] = ()
    tests: tuple[Outcome, ...] = ()
    annotated: tuple[AnnotatedFile, ...] = ()
    sources: Mapping[tuple[str, str], str] = field(default_factory=dict, compare=False)

    def merged(self, newer: Mapping[Key, Figure]) -> Results:
        """Return the same with newer figures in the place of older ones."""
        return replace(self, figures={**self.figures, **newer})


def read(path: Path) -> Results:
    """Read a result file; raises `ResultFileError` for what is none, or of a newer schema."""
    if _is_special(path):
        raise ResultFileError(f"{path} cannot be read: it is a device or a pipe, and no file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ResultFileError(f"{path} cannot be read: {why}") from None
    return parse(text, str(path))


def parse(text: str, path: str = "") -> Results:
    """Read the text of a result file, as `read` does."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultFileError(
            f"{path} is not JSON ({error}): restore it, or delete it and save anew"
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultFileError(f"{path} is JSON, but no result file of pytest-bpf")
    schema = content.get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ResultFileError(
            f"{path} has schema {schema}, and this pytest-bpf knows up to {SCHEMA}: "
            "upgrade pytest-bpf"
        )
    try:
        return _results(content)
    except shape.ShapeError as error:
        raise ResultFileError(
            f"{path} is not as its schema says: {error}: restore it, or delete it and save anew"
        ) from None


def write(path: Path, results: Results) -> None:
    """Write a result file, whole or not at all; raises `ResultFileError`."""
    write_text(path, format_results(results))


def format_results(results: Results) -> str:
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
    if results.tests:
        content["tests"] = [outcome.as_dict() for outcome in results.tests]
    if results.annotated:
        content["annotated"] = [file.as_dict() for file in results.annotated]
    return _dumped(content) + "\n"


def write_text(path: Path, content: str) -> None:
    """Write a file, whole or not at all; raises `ResultFileError`.

    What is no regular file, a pipe or ``/dev/stdout``, is written to as it is.
    """
    try:
        check_writable(path)
        if _is_special(path):
            path.write_text(content, encoding="utf-8")
            return
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
        if _is_special(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ResultFileError(
            f"{path} cannot be written: {path.parent}: {error.strerror}"
        ) from None
    if path.is_dir():
        raise ResultFileError(f"{path} cannot be written: it is a folder")


def _is_special(path: Path) -> bool:
    """Say whether there is a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _results(content: Mapping[str, Any]) -> Results:
    environments = shape.array(shape.member(content, "environments", "it"), "environments")
    figures: dict[Key, Figure] = {}
    for number, entry in enumerate(environments):
        figures |= _figures(entry, f"environments[{number}]")
    allowed = {
        name: shape.string(change, f"allowed[{name!r}]")
        for name, change in shape.mapping(content.get("allowed", {}), "allowed").items()
    }
    findings = findings_of(content.get("findings", []))
    claims = claims_of(content.get("claims", []))
    tests = tuple(
        Outcome.from_dict(each, f"tests[{number}]")
        for number, each in enumerate(shape.array(content.get("tests", []), "tests"))
    )
    annotated = tuple(
        AnnotatedFile.from_dict(each, f"annotated[{number}]")
        for number, each in enumerate(shape.array(content.get("annotated", []), "annotated"))
    )
    return Results(figures, allowed, findings, claims, tests, annotated)


def _figures(entry: object, place: str) -> dict[Key, Figure]:
    """Return the figures of one environment."""
    values = shape.mapping(entry, place)
    names = [field.name for field in fields(Environment)]
    for name in values:
        if name not in (*names, "tests"):
            raise shape.ShapeError(f"{place} has {name!r}{near_matches(name, names)}")
    environment = Environment(
        *(shape.string(shape.member(values, name, place), f"{place}.{name}") for name in names)
    )
    if environment.instrument not in get_args(Instrument):
        hint = near_matches(environment.instrument, get_args(Instrument))
        raise shape.ShapeError(f"{place}.instrument is {environment.instrument!r}{hint}")
    figures = {}
    for test, subjects in shape.mapping(shape.member(values, "tests", place), "tests").items():
        for subject, metrics in shape.mapping(subjects, f"tests[{test!r}]").items():
            for metric, figure in shape.mapping(metrics, f"{test}: {subject!r}").items():
                key = Key(environment, test, subject, metric)
                for name in (test, subject, metric):
                    shape.string(name, "a name")
                figures[key] = _figure(key, shape.mapping(figure, f"{test}: {metric}"))
    return figures


def _figure(key: Key, entry: Mapping[str, Any]) -> Figure:
    place = f"{key.test}: {f'{key.subject}: ' if key.subject else ''}{key.metric}"
    if key.metric not in METRICS:
        hint = near_matches(key.metric, METRICS)
        raise shape.ShapeError(f"{place}: there is no such metric{hint}")
    value = _optional(shape.member(entry, "value", place), f"{place}: value")
    unit = METRICS[key.metric].unit
    if entry.get("unit", unit) != unit:
        raise shape.ShapeError(f"{place}: unit is {entry['unit']!r:.60}, not {unit!r}")
    lower, upper = (_optional(entry.get(name, value), f"{place}: {name}") for name in BOUNDS)
    samples, reference = (_numbers(entry.get(name, []), f"{place}: {name}") for name in SERIES)
    if (lower is None) != (upper is None) or (lower is not None and value is None):
        raise shape.ShapeError(f"{place} has one bound, or bounds of no value")
    if lower is not None and upper is not None and not lower <= upper:
        raise shape.ShapeError(f"{place}: lower {lower:g} is above upper {upper:g}")
    if reference and len(reference) != len(samples):
        raise shape.ShapeError(f"{place}: {len(samples)} samples, {len(reference)} of reference")
    return Figure(
        metric=key.metric,
        subject=key.subject,
        value=value,
        lower=lower,
        upper=upper,
        instrument=key.environment.instrument,  # type: ignore[arg-type]
        samples=samples,
        reference=reference,
        why_not=shape.string(entry.get("why_not", ""), f"{place}: why_not"),
    )


def _optional(value: object, place: str) -> float | None:
    return None if value is None else shape.number(value, place)


def _numbers(value: object, place: str) -> tuple[float, ...]:
    return tuple(shape.number(each, place) for each in shape.array(value, place))


def _as_dict(figure: Figure) -> dict[str, Any]:
    if figure.value is None:
        return {"value": None, "why_not": figure.why_not}
    entry: dict[str, Any] = {
        "value": _number(figure.value),
        "unit": METRICS[figure.metric].unit if figure.metric in METRICS else "",
    }
    for name, bound in zip(BOUNDS, (figure.lower, figure.upper), strict=True):
        if bound != figure.value:
            entry[name] = None if bound is None else _number(bound)
    for name, samples in zip(SERIES, (figure.samples, figure.reference), strict=True):
        if samples:
            entry[name] = [_number(sample) for sample in samples]
    return entry


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
