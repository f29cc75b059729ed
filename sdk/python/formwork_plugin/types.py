"""The contract's records. JSON texts are parsed when they are asked for and written when they are handed over."""

import json
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, Self

from .errors import InvalidForm, InvalidInput

Details = list[tuple[str, str]]


def _details(facts: dict[str, Any]) -> Details:
    return [(name, json.dumps(value, ensure_ascii=False)) for name, value in facts.items()]


class Form:
    """A published form version."""

    def __init__(self, id: str, version: int, schema: str, schemas: list[tuple[str, str]] | None = None) -> None:
        self.id = id
        self.version = version
        self.schema_json = schema
        self.schemas_json = dict(schemas or [])

    @cached_property
    def schema(self) -> Any:
        """The JSON Schema of a submission's data. Raises :class:`InvalidForm` when it is not JSON."""
        return self._parse(self.schema_json)

    @cached_property
    def schemas(self) -> dict[str, Any]:
        """Further schemas registered with the form, by URI."""
        return {uri: self._parse(text) for uri, text in self.schemas_json.items()}

    @staticmethod
    def _parse(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise InvalidForm("", "json", f"is not JSON: {error}") from error


class Submission:
    """One submission and what the steps before this one made of it."""

    def __init__(self, id: str, submitted_at: str, data: str, results: dict[str, str] | None = None) -> None:
        self.id = id
        self.submitted_at = submitted_at
        """RFC 3339, UTC: ``datetime.fromisoformat`` reads it."""
        self.data_json = data
        self.results_json = results or {}

    @cached_property
    def data(self) -> Any:
        """The answers. Raises :class:`InvalidInput` when they are not JSON."""
        try:
            return json.loads(self.data_json)
        except (ValueError, RecursionError) as error:
            raise InvalidInput("", "json", f"is not JSON that can be read: {error}") from error

    @cached_property
    def results(self) -> dict[str, Any]:
        """The recorded output of the steps before, by step name."""
        return {step: json.loads(output) for step, output in self.results_json.items()}


class Severity(Enum):
    """How much a finding weighs. Only ``ERROR`` rejects a submission."""

    ERROR = 0
    WARNING = 1
    INFO = 2


@dataclass
class Finding:
    """One thing a validator found."""

    pointer: str
    code: str
    message: str
    severity: Severity = Severity.ERROR
    details: Details = field(default_factory=list)

    @classmethod
    def error(cls, pointer: str, code: str, message: str, **facts: Any) -> Self:
        """A finding that rejects the submission; ``facts`` stand beside it in the output."""
        return cls(pointer, code, message, Severity.ERROR, _details(facts))

    @classmethod
    def warning(cls, pointer: str, code: str, message: str, **facts: Any) -> Self:
        """A finding that does not reject."""
        return cls(pointer, code, message, Severity.WARNING, _details(facts))

    @classmethod
    def info(cls, pointer: str, code: str, message: str, **facts: Any) -> Self:
        """A remark."""
        return cls(pointer, code, message, Severity.INFO, _details(facts))


@dataclass
class Label:
    """A label with the probability, 0 to 1, that it applies."""

    name: str
    score: float


@dataclass
class Classification:
    """A classifier's answer: the labels that apply, and the scores of all. No label means none applies."""

    labels: list[Label]
    scores: list[Label]
    details: Details = field(default_factory=list)

    @classmethod
    def of(cls, scores: dict[str, float], threshold: float, **facts: Any) -> Self:
        """The labels whose score reaches ``threshold``, best first."""
        ranked = [Label(name, score) for name, score in sorted(scores.items(), key=lambda pair: -pair[1])]
        return cls([label for label in ranked if label.score >= threshold], ranked, _details(facts))


@dataclass
class Span:
    """A place in the submission's data, in Unicode code points, as Python counts them."""

    pointer: str
    offset: int
    length: int


@dataclass
class Field:
    """One extracted field. ``value`` is a JSON text: see :meth:`found`."""

    name: str
    value: str
    content: str
    confidence: float
    spans: list[Span]
    method: str
    details: Details = field(default_factory=list)

    @classmethod
    def found(
        cls,
        name: str,
        value: Any,
        content: str,
        pointer: str,
        offset: int,
        *,
        confidence: float,
        method: str,
        **facts: Any,
    ) -> Self:
        """A field whose ``content`` stands at ``offset`` of the string at ``pointer``; ``value`` is any JSON value."""
        span = Span(pointer, offset, len(content))
        text = json.dumps(value, ensure_ascii=False)
        return cls(name, text, content, confidence, [span], method, _details(facts))


@dataclass
class Extraction:
    """An extractor's answer: what was found, and the names of what was not."""

    fields: list[Field]
    missing: list[str] = field(default_factory=list)
    details: Details = field(default_factory=list)
