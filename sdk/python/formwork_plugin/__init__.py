"""What a Formwork plugin in Python builds on.

A plugin is a folder with ``plugin.toml`` and ``app.py``, which defines one class named ``Plugin``::

    from formwork_plugin import Finding, Form, InvalidSettings, Submission

    class Plugin:
        def __init__(self, form: Form, settings: dict) -> None:
            if "max" not in settings:
                raise InvalidSettings("/max", "required", "say how long a message may be")
            self.max = settings["max"]

        def validate(self, submission: Submission) -> list[Finding]:
            message = submission.data.get("message", "")
            if len(message) <= self.max:
                return []
            return [Finding.error("/message", "too-long", f"at most {self.max} characters", limit=self.max)]

``__init__`` is the contract's ``prepare``: it runs once for a form version, may call nothing of
:mod:`formwork_plugin.host` and should not print; the host may snapshot what it leaves in memory and start every
submission from that snapshot. The work method is named after the kind:

========== =================================================================
validator  ``validate(submission) -> list[Finding]``
classifier ``classify(submission) -> Classification``
extractor  ``extract(submission) -> Extraction``
exporter   ``begin(sink)``, ``export(submissions, sink) -> int``, ``end(sink)``
========== =================================================================

Nothing here needs WebAssembly: a plugin that keeps to this module is tested with plain Python. Where a message or a
pointer goes, and which errors are tried again, is in ``wit/1.0.0/types.wit``.
"""

from .errors import Internal, InvalidForm, InvalidInput, InvalidSettings, PluginError, Problem, Unavailable
from .pointers import MISSING, matches, pointer, segments, value_at
from .types import (
    Classification,
    Extraction,
    Field,
    Finding,
    Form,
    Label,
    Severity,
    Span,
    Submission,
)

__all__ = [
    "MISSING",
    "Classification",
    "Extraction",
    "Field",
    "Finding",
    "Form",
    "Internal",
    "InvalidForm",
    "InvalidInput",
    "InvalidSettings",
    "Label",
    "PluginError",
    "Problem",
    "Severity",
    "Span",
    "Submission",
    "Unavailable",
    "matches",
    "pointer",
    "segments",
    "value_at",
]
