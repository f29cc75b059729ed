"""Celery on Redis. Contract: README.md. QUEUE_POOL is the worker's pool, QUEUE_TUNED=1 its tuned settings, QUEUE_BULK=1 sends
groups of 100."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import redis
from celery import group

from celery_app import URL, app, job
from contract import CONCURRENCY, JOBS, PRODUCERS, RATE, SECONDS, WARM_UP_JOBS, begin, document, end, now_us

POOL = os.environ.get("QUEUE_POOL", "prefork")
TUNED = os.environ.get("QUEUE_TUNED") == "1"
BULK = 100 if os.environ.get("QUEUE_BULK") == "1" else 1
# Python threads of one process share one CPU: the producers get as many processes as there are CPUs.
PROCESSES = min(os.cpu_count() or 1, PRODUCERS)


def produce(first: int, jobs: int, rate: float, began: float) -> None:
    """The jobs of every PROCESSES-th producer; with a rate by the clock, else as fast as they are acknowledged."""

    def one(producer: int) -> None:
        own = range(producer, jobs, PRODUCERS)
        if BULK > 1 and not rate:
            for start in range(0, len(own), BULK):
                group(job.s(document(index, now_us())) for index in own[start : start + BULK]).apply_async()
            return
        for index in own:
            sent_us = now_us()
            if rate:
                due = began + index / rate
                time.sleep(max(0.0, due - time.time()))
                late = time.time() - due
                sent_us = now_us() - (int(late * 1e6) if late > 0.002 else 0)
            job.apply_async((document(index, sent_us),))

    running = [threading.Thread(target=one, args=(producer,)) for producer in range(first, PRODUCERS, PROCESSES)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def send(jobs: int, rate: float = 0.0) -> float:
    """Sends from all processes; answers how long that took. The clock starts when all of them are up."""
    gate = multiprocessing.Barrier(PROCESSES + 1)

    def child(first: int) -> None:
        with app.connection_for_write() as connection:
            connection.ensure_connection()
        gate.wait()
        produce(first, jobs, rate, time.time())

    children = [multiprocessing.Process(target=child, args=(first,)) for first in range(PROCESSES)]
    for process in children:
        process.start()
    gate.wait()
    began = time.monotonic()
    for process in children:
        process.join()
    elapsed = time.monotonic() - began
    if any(process.exitcode for process in children):
        sys.exit("a producer failed")
    return elapsed


def results(client: redis.Redis) -> int:
    # Nothing else of this size is in the database: a result is a key, the queue one key for all.
    return sum(1 for _ in client.scan_iter("celery-task-meta-*", count=10_000))


def wait_for(client: redis.Redis, count: int) -> int:
    """Waits for so many results. The size of the database is a cheap lower bound to look at often."""
    last, changed = -1, time.monotonic()
    while True:
        size = client.dbsize()
        if size >= count and (found := results(client)) >= count:
            return found
        if size != last:
            last, changed = size, time.monotonic()
        if time.monotonic() - changed > 90:
            return results(client)
        time.sleep(0.02)


def start_worker() -> subprocess.Popen:
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--loglevel", "ERROR",
               "--pool", POOL, "--concurrency", str(CONCURRENCY)]
    if TUNED:
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=os.path.dirname(os.path.abspath(__file__)))


def main() -> None:
    client = redis.Redis.from_url(URL)
    if not RATE:
        begin("enqueue")
        end("enqueue", jobs=JOBS, seconds=send(JOBS))
        begin("complete")
        worker = start_worker()
        first = wait_for(client, WARM_UP_JOBS)
        began = time.monotonic()
        found = wait_for(client, JOBS)
        end("complete", jobs=found - first, seconds=time.monotonic() - began)
    else:
        worker = start_worker()
        # Up when it has done something.
        job.apply_async((document(-1, now_us()),)).get(timeout=60)
        begin("paced")
        count = int(RATE * SECONDS)
        seconds = send(count, RATE)
        wait_for(client, count + 1)
        end("paced", jobs=count, seconds=seconds)
    worker.terminate()
    worker.wait(timeout=60)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
