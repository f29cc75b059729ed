"""Writes JSON lines, and fails in every way that a test asks for."""

import json
import socket
import sys

from formwork_plugin import Form, InvalidInput, Submission, Unavailable, host


class Plugin:
    def __init__(self, form: Form, settings: dict) -> None:
        self.prepared = f"{form.id} {form.schema}"
        if settings.get("fault"):
            FAULTS[settings["fault"]]()

    def begin(self, sink) -> None:
        sink.write(b"# begin\n")

    def export(self, submissions: list[Submission], sink) -> int:
        for submission in submissions:
            fault = submission.data.get("fault")
            if fault:
                FAULTS[fault]()
            host.log("info", "one more", id=submission.id)
            line = {"form": self.prepared, "at": submission.submitted_at, **submission.data, **submission.results}
            sink.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return len(submissions)

    def end(self, sink) -> None:
        sink.write("# end – ✓\n".encode())


def exception() -> None:
    {}["missing"]


def unavailable() -> None:
    raise Unavailable("the register is being repaired")


def refused() -> None:
    raise InvalidInput("/name", "unreadable", "write it in letters")


def memory() -> None:
    bytearray(1 << 27)


def loop() -> None:
    while True:
        pass


def recursion() -> None:
    recursion()


def leave() -> None:
    print("the last words")
    sys.exit(3)


def network() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect((b"127.0.0.1", 80))


def model() -> None:
    host.embed("no-such-model", ["a"])


def call() -> None:
    host.log("info", "from prepare")


FAULTS = {
    "exception": exception,
    "unavailable": unavailable,
    "refused": refused,
    "memory": memory,
    "loop": loop,
    "recursion": recursion,
    "leave": leave,
    "model": model,
    "network": network,
    "call": call,
}
