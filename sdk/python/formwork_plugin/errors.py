"""The contract's errors as exceptions. Any other exception reaches the host as ``internal`` with its traceback."""

from dataclasses import dataclass
from typing import Iterable, Self


@dataclass
class Problem:
    """Something wrong with what the plugin was given: where, a stable code, and how to fix it."""

    pointer: str
    code: str
    message: str


class PluginError(Exception):
    """Why a plugin did not answer."""


class _Problems(PluginError):
    def __init__(self, pointer: str, code: str, message: str) -> None:
        super().__init__(f"{pointer or '(whole)'}: {message}")
        self.problems = [Problem(pointer, code, message)]

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """The same error with several problems, at least one."""
        problems = list(problems)
        error = cls(problems[0].pointer, problems[0].code, problems[0].message)
        error.problems = problems
        return error


class InvalidSettings(_Problems):
    """The step's settings are wrong. Pointers go into the settings."""


class InvalidForm(_Problems):
    """The form's schema cannot be used. Pointers go into the schema."""


class InvalidInput(_Problems):
    """This submission can never be processed. Pointers go into its data. It is not tried again."""


class Unavailable(PluginError):
    """Something the plugin needs is not there now. The host tries again later."""


class Internal(PluginError):
    """A bug or a broken assumption in the plugin. It is not tried again."""
