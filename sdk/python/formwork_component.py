"""Between the contract's functions and a plugin's class. `formwork plugin build` makes this module the component's.

It is loaded while the component is built, together with `app`: what `app` does at its top level is done by then.
"""

import json
import traceback

import wit_world.exports
from componentize_py_types import Err
from wit_world.imports import types as wit

import formwork_plugin as sdk

import app

_METHODS = {
    "Validation": ["validate"],
    "Classifying": ["classify"],
    "Extracting": ["extract"],
    "Exporting": ["begin", "export", "end"],
}

# A traceback tells the author where; the frames below this many are the interpreter's own story.
_FRAMES = 8
_MESSAGE_CHARACTERS = 4000


def _check() -> None:
    if not isinstance(getattr(app, "Plugin", None), type):
        raise TypeError("app.py must define a class named Plugin")
    for interface, methods in _METHODS.items():
        if hasattr(wit_world.exports, interface):
            for method in methods:
                if not callable(getattr(app.Plugin, method, None)):
                    raise TypeError(f"class Plugin of app.py must have a method named {method}")


_check()
_plugin = None


def _answer(work):
    """Runs `work` and turns what it raises into an error of the contract."""
    try:
        return work()
    except MemoryError:
        # The trap tells the host which limit it was; an answer would hide it.
        raise
    except sdk.PluginError as error:
        raise Err(_plugin_error(error)) from None
    except Err as error:
        raise Err(_host_error(error.value)) from None
    except (Exception, SystemExit) as error:
        lines = traceback.format_exception(error, limit=-_FRAMES, chain=False)
        raise Err(wit.Error_Internal("".join(lines).strip()[-_MESSAGE_CHARACTERS:])) from None


def _plugin_error(error: sdk.PluginError):
    match error:
        case sdk.InvalidSettings():
            return wit.Error_InvalidSettings(error.problems)
        case sdk.InvalidForm():
            return wit.Error_InvalidForm(error.problems)
        case sdk.InvalidInput():
            return wit.Error_InvalidInput(error.problems)
        case sdk.Unavailable():
            return wit.Error_Unavailable(str(error))
        case _:
            return wit.Error_Internal(str(error))


def _host_error(value):
    """What may pass becomes `unavailable`, so that the host tries again; a refusal for good becomes `internal`."""
    name = type(value).__name__
    if not name.startswith("HostError_"):
        return value
    what = name.removeprefix("HostError_")
    why = str(getattr(value, "value", what))
    if what in ("Unavailable", "UnknownModel", "DeadlineExceeded", "Cancelled"):
        return wit.Error_Unavailable(why)
    if what == "Denied":
        return wit.Error_Internal(f"the grant `{why}` is missing")
    return wit.Error_Internal(f"host call refused: {why}")


def _prepared():
    if _plugin is None:
        raise sdk.Internal("prepare was not called")
    return _plugin


def _submission(given) -> sdk.Submission:
    results = {result.step: result.output for result in given.results}
    return sdk.Submission(given.id, given.submitted_at, given.data, results)


class WitWorld:
    def prepare(self, form, settings: str) -> None:
        def work() -> None:
            global _plugin
            parsed = json.loads(settings)
            if parsed is None:
                parsed = {}
            if not isinstance(parsed, dict):
                raise sdk.InvalidSettings("", "type", "must be an object")
            _plugin = app.Plugin(sdk.Form(form.id, form.version, form.schema, form.schemas), parsed)

        _answer(work)


class Validation:
    def validate(self, submission):
        return _answer(lambda: _prepared().validate(_submission(submission)))


class Classifying:
    def classify(self, submission):
        return _answer(lambda: _prepared().classify(_submission(submission)))


class Extracting:
    def extract(self, submission):
        return _answer(lambda: _prepared().extract(_submission(submission)))


class Exporting:
    def begin(self, sink) -> None:
        _answer(lambda: _prepared().begin(sink))

    def export(self, submissions, sink) -> int:
        return _answer(lambda: _prepared().export([_submission(given) for given in submissions], sink))

    def end(self, sink) -> None:
        _answer(lambda: _prepared().end(sink))
