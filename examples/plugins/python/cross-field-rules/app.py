"""Rules between the fields of a form, which a JSON Schema cannot say.

``__init__`` compiles the rules: every mistake in the settings is found there and named with its place. ``validate`` only
applies them. A rule says nothing about values it cannot read: their type and format are the schema's to check.
"""

from datetime import date, datetime

from formwork_plugin import Finding, Form, InvalidSettings, Problem, Severity, Submission, pointer

import rules
from settings import Mistake

MAX_RULES = 500


class Plugin:
    def __init__(self, form: Form, settings: dict) -> None:
        given = settings.get("rules")
        if not isinstance(given, list) or not 0 < len(given) <= MAX_RULES:
            raise InvalidSettings("/rules", "rules", f"must be a list of 1 to {MAX_RULES} rules")
        self.rules: list[rules.Rule] = []
        problems: list[Problem] = []
        for index, rule in enumerate(given):
            try:
                self.rules.append(rules.compile_rule(rule))
            except Mistake as mistake:
                problems.append(Problem(pointer("rules", index, *mistake.path), mistake.code, str(mistake)))
        if problems:
            raise InvalidSettings.of(problems)

    def validate(self, submission: Submission) -> list[Finding]:
        today = _day(submission.submitted_at)
        return [
            Finding(place, rule.code, rule.message, Severity[rule.severity], [])
            for rule in self.rules
            for place in rule.broken_at(submission.data, today)
        ]


def _day(submitted_at: str) -> date:
    return datetime.fromisoformat(submitted_at).date()
