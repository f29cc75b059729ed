"""Formwork by `formwork bench queue`. Contract: README.md. QUEUE_ROW is the bench's row."""

import os

from contract import JOBS, PAYLOAD_BYTES, PRODUCERS, RATE, SECONDS

arguments = [
    os.environ["QUEUE_FORMWORK"], "bench", "queue", "--rounds", "1",
    "--row", os.environ["QUEUE_ROW"],
    "--durability", {"sync": "sync", "everysec": "interval"}[os.environ["QUEUE_CLASS"]],
    # By the clock: what comes before is only a warm-up.
    "--jobs", str(100 if RATE else JOBS), "--clients", str(PRODUCERS), "--payload-bytes", str(PAYLOAD_BYTES),
    "--rate", str(RATE), "--seconds", str(int(SECONDS)),
    "--adapter", os.environ["QUEUE_FOLDER"],
]
os.execv(arguments[0], arguments)
