"""JSON Pointers (RFC 6901): where a finding stands."""

from typing import Any, Iterator

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()
"""What :func:`value_at` answers where nothing stands: JSON's ``null`` is a value."""


def pointer(*names: str | int) -> str:
    """The pointer of these segments: ``pointer("a/b", 0)`` is ``/a~1b/0``."""
    return "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def segments(text: str) -> list[str]:
    """The segments of a pointer.

    Raises ValueError for a text that is none.
    """
    if text == "":
        return []
    escapes = text.replace("~0", "").replace("~1", "")
    if not text.startswith("/") or "~" in escapes:
        raise ValueError(f"{text!r} is not a JSON Pointer: it starts with / and writes ~ as ~0")
    return [name.replace("~1", "/").replace("~0", "~") for name in text[1:].split("/")]


def value_at(data: Any, text: str) -> Any:
    """The value a pointer leads to, or :data:`MISSING`."""
    value = data
    for name in segments(text):
        value = _member(value, name)
        if value is MISSING:
            break
    return value


def matches(data: Any, pattern: list[str]) -> Iterator[tuple[str, Any]]:
    """(pointer, value) of everything a list of segments leads to, where ``*`` stands for each entry of a list.

    A missing member is answered once, as (the place where it should be, :data:`MISSING`).
    """

    def walk(value: Any, at: int, done: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
        if at == len(pattern):
            yield pointer(*done), value
        elif pattern[at] == "*":
            for index, entry in enumerate(value if isinstance(value, list) else ()):
                yield from walk(entry, at + 1, (*done, index))
        elif (found := _member(value, pattern[at])) is MISSING:
            if "*" not in pattern[at:]:
                yield pointer(*done, *pattern[at:]), MISSING
        else:
            yield from walk(found, at + 1, (*done, pattern[at]))

    return walk(data, 0, ())


def _member(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, MISSING)
    if isinstance(value, list) and name.isascii() and name.isdecimal() and (name == "0" or name[0] != "0"):
        index = int(name)
        return value[index] if index < len(value) else MISSING
    return MISSING
