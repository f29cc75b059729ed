"""Reading settings with the place of every mistake."""

import re
from typing import Any

from formwork_plugin import segments

LARGEST_PATTERN = 1000


class Mistake(Exception):
    """Something wrong in a rule; ``path`` leads to it from the rule."""

    def __init__(self, path: tuple, code: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.code = code


class Reader:
    """An object of the settings. Whatever is not asked for is a mistake at the end."""

    def __init__(self, value: Any, path: tuple = ()) -> None:
        if not isinstance(value, dict):
            raise Mistake(path, "type", "must be an object")
        self.members = value
        self.path = path
        self.seen: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self.members

    def raw(self, name: str) -> Any:
        self.seen.add(name)
        if name not in self.members:
            raise self.wrong(name, "required", f"`{name}` is missing")
        return self.members[name]

    def text(self, name: str) -> str:
        value = self.raw(name)
        if not isinstance(value, str) or not value:
            raise self.wrong(name, "type", "must be a text that is not empty")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number, or None where it is not given."""
        if not self.has(name):
            return None
        value = self.raw(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(name, "type", "must be a whole number")
        return value

    def choice(self, name: str, choices: Any, default: str | None = None) -> str:
        if default is not None and not self.has(name):
            return default
        value = self.raw(name)
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, "enum", f"must be one of: {', '.join(choices)}")
        return value

    def place(self, name: str) -> list[str]:
        return self.segments_of(name, self.text(name))

    def places(self, name: str) -> list[list[str]]:
        value = self.raw(name)
        if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
            raise self.wrong(name, "type", "must be a list of JSON Pointers")
        return [self.segments_of(name, entry) for entry in value]

    def pattern(self, name: str) -> re.Pattern:
        text = self.text(name)
        if len(text) > LARGEST_PATTERN:
            raise self.wrong(name, "pattern", f"must have at most {LARGEST_PATTERN} characters")
        try:
            return re.compile(text)
        except re.error as error:
            raise self.wrong(name, "pattern", f"is no regular expression: {error}") from None

    def done(self) -> None:
        for name in self.members:
            if name not in self.seen:
                raise self.wrong(name, "unknown", f"`{name}` is not known here")

    def wrong(self, name: str, code: str, message: str) -> Mistake:
        return Mistake((*self.path, name), code, message)

    def segments_of(self, name: str, text: str) -> list[str]:
        try:
            return segments(text)
        except ValueError as error:
            raise self.wrong(name, "pointer", str(error)) from None
