"""What an adapter is told and what it says; see README.md. For adapters in Python."""

import json
import os
import time

JOBS = int(os.environ["QUEUE_JOBS"])
PRODUCERS = int(os.environ["QUEUE_PRODUCERS"])
PAYLOAD_BYTES = int(os.environ["QUEUE_PAYLOAD_BYTES"])
CONCURRENCY = int(os.environ["QUEUE_CONCURRENCY"])
RATE = float(os.environ["QUEUE_RATE"])
SECONDS = float(os.environ["QUEUE_SECONDS"])
WARM_UP_JOBS = 50


def begin(phase: str) -> None:
    print(json.dumps({"event": "begin", "phase": phase}), flush=True)


def end(phase: str, jobs: int, seconds: float) -> None:
    print(json.dumps({"event": "end", "phase": phase, "jobs": jobs, "seconds": seconds}), flush=True)


def now_us() -> int:
    return time.time_ns() // 1000


def document(number: int, sent_us: int) -> dict:
    """The job's document, of PAYLOAD_BYTES as compact JSON."""
    head = len(f'{{"number":{number},"sent_us":{sent_us},"padding":""}}')
    return {"number": number, "sent_us": sent_us, "padding": "x" * max(0, PAYLOAD_BYTES - head)}
