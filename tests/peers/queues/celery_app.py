"""The Celery application: one task that does nothing but note that it ran."""

import os
import time
from pathlib import Path

from celery import Celery

URL = os.environ["QUEUE_REDIS_URL"]
TUNED = os.environ.get("QUEUE_TUNED") == "1"

app = Celery("peer", broker=URL, backend=URL)
app.conf.update(
    # At least once: a job of a killed worker comes back.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64 if TUNED else 1,
    broker_transport_options={"visibility_timeout": 60},
    broker_pool_limit=64,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    redis_max_connections=200,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_hijack_root_logger=False,
)

_runs = None


def _note(line: str) -> None:
    global _runs
    if _runs is None or _runs[0] != os.getpid():
        file = Path(os.environ["QUEUE_FOLDER"]) / f"celery-{os.getpid()}.runs"
        _runs = (os.getpid(), os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    os.write(_runs[1], line.encode())


@app.task(autoretry_for=(Exception,), max_retries=3, retry_backoff=True, retry_jitter=True)
def job(payload: dict) -> dict:
    _note(f"{payload['number']} {payload['sent_us']} {time.time_ns() // 1000}\n")
    return {}
