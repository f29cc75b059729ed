"""What a rule may demand. Each compiler reads its settings and answers a function of (value, others, today)."""

from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Callable

from formwork_plugin import MISSING

import checksums
from settings import Reader

Check = Callable[[Any, Any, date], bool]


def _required(reader: Reader, name: str) -> Check:
    if reader.raw(name) is not True:
        raise reader.wrong(name, "type", "must be true")
    return lambda value, others, today: value is not MISSING and value not in (None, "", [], {})


def _matches(reader: Reader, name: str) -> Check:
    pattern = reader.pattern(name)
    return lambda value, others, today: not isinstance(value, str) or pattern.fullmatch(value) is not None


def _checksum(reader: Reader, name: str) -> Check:
    holds = checksums.SCHEMES[reader.choice(name, checksums.SCHEMES)]
    return lambda value, others, today: not isinstance(value, str) or holds(value)


def _equals(reader: Reader, name: str) -> Check:
    place = reader.place(name)

    def check(value: Any, others: Any, today: date) -> bool:
        other = others(place)
        return value is MISSING or other is MISSING or value == other

    return check


def _age(reader: Reader, name: str) -> Check:
    limits = Reader(reader.raw(name), (name,))
    least, most = limits.whole("min"), limits.whole("max")
    limits.done()
    if least is None and most is None:
        raise limits.wrong("min", "required", "give `min`, `max` or both, in years")

    def check(value: Any, others: Any, today: date) -> bool:
        born = day(value)
        if born is None:
            return True
        years = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
        return (least is None or years >= least) and (most is None or years <= most)

    return check


def _after(reader: Reader, name: str) -> Check:
    span = Reader(reader.raw(name), (name,))
    place = span.place("date")
    least, most = span.whole("min_days"), span.whole("max_days")
    span.done()
    shortest = timedelta(days=least or 0)
    longest = None if most is None else timedelta(days=most)

    def check(value: Any, others: Any, today: date) -> bool:
        late, early = day(value), day(others(place))
        if late is None or early is None:
            return True
        return shortest <= late - early and (longest is None or late - early <= longest)

    return check


def _sum(reader: Reader, name: str) -> Check:
    places = reader.places(name)

    def check(value: Any, others: Any, today: date) -> bool:
        total = amount(value)
        parts = [amount(part) for place in places for part in others.all(place)]
        if total is None or None in parts:
            return True
        return sum(parts, Decimal(0)) == total

    return check


COMPILERS: dict[str, Callable[[Reader, str], Check]] = {
    "required": _required,
    "matches": _matches,
    "checksum": _checksum,
    "equals": _equals,
    "age": _age,
    "after": _after,
    "sum": _sum,
}


def day(value: Any) -> date | None:
    """The date of an RFC 3339 date or date-time, else None."""
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def amount(value: Any) -> Decimal | None:
    """A number as it was written: 0.1 + 0.2 is 0.3 for the person who filled in the form."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
