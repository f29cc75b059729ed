"""One rule: where it looks, when it applies, what must hold."""

from dataclasses import dataclass
from datetime import date
from typing import Any, Callable, Iterator

from formwork_plugin import MISSING, matches, pointer, segments, value_at

import checks
from settings import Mistake, Reader

SEVERITIES = {"error": "ERROR", "warning": "WARNING", "info": "INFO"}

Condition = Callable[[Any, list[str]], bool]


@dataclass
class Rule:
    """A compiled rule."""

    code: str
    message: str
    severity: str
    at: list[str]
    applies: Condition
    check: checks.Check

    def broken_at(self, data: Any, today: date) -> Iterator[str]:
        """Pointers to the values that break the rule."""
        for place, value in matches(data, self.at):
            found = segments(place)
            other = Others(data, found)
            if self.applies(data, found) and not self.check(value, other, today):
                yield place


class Others:
    """The other fields a check looks at. A ``*`` in their pointers is the entry the rule stands at."""

    def __init__(self, data: Any, found: list[str]) -> None:
        self.data = data
        self.found = found

    def __call__(self, place: list[str]) -> Any:
        return value_at(self.data, pointer(*bind(place, self.found)))

    def all(self, place: list[str]) -> Iterator[Any]:
        """The values of every entry, for totals."""
        return (value for _, value in matches(self.data, place))


def bind(place: list[str], found: list[str]) -> list[str]:
    """``/people/*/born`` for the rule at ``/people/2/name`` is ``/people/2/born``."""
    bound = []
    for index, name in enumerate(place):
        together = bound == found[:index] and index < len(found)
        bound.append(found[index] if name == "*" and together else name)
    return bound


def compile_rule(given: Any) -> Rule:
    """Raises Mistake with the place inside the rule."""
    reader = Reader(given)
    code = reader.text("code")
    message = reader.text("message")
    severity = SEVERITIES[reader.choice("severity", SEVERITIES, "error")]
    at = reader.place("at")
    applies = _condition(reader)
    named = [name for name in checks.COMPILERS if reader.has(name)]
    if len(named) != 1:
        raise Mistake((), "check", f"must have exactly one of: {', '.join(checks.COMPILERS)}")
    check = checks.COMPILERS[named[0]](reader, named[0])
    reader.done()
    return Rule(code, message, severity, at, applies, check)


def _condition(rule: Reader) -> Condition:
    if not rule.has("when"):
        return lambda data, found: True
    reader = Reader(rule.raw("when"), ("when",))
    place = reader.place("at")
    if reader.has("matches"):
        pattern = reader.pattern("matches")
        holds = lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None
    elif reader.has("given"):
        wanted = reader.raw("given")
        holds = lambda value: (value is not MISSING and value is not None and value != "") == wanted
    else:
        wanted = reader.raw("in")
        if not isinstance(wanted, list) or not wanted:
            raise reader.wrong("in", "type", "must be a list of the values for which the rule applies")
        # 1 and true are equal in Python, not in JSON.
        kinds = [(type(value), value) for value in wanted]
        holds = lambda value: (type(value), value) in kinds
    reader.done()
    return lambda data, found: holds(value_at(data, pointer(*bind(place, found))))
