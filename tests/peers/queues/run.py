#!/usr/bin/env python3
"""Formwork's queue, Celery and BullMQ on the same jobs, in one run.

Problem:  rates that queues publish differ in machine, payload, fsync and what "done" means.
Promise:  one machine, one Redis binary, one job, 32 producers; tables by durability class that never mix; rows take
          turns, so that what else the machine does meets all of them; lost and doubled jobs are counted, not assumed.
Cost:     about 20 minutes. Producers, workers and Redis share the machine, as they would on a small server.
Rejected: each project's own bench: another job, another clock.

run.py --formwork PROGRAM --cache FOLDER --report FILE [--repeats N] [--class always|everysec] [--only TEXT] [--scale X]
       [--producers N]
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRODUCERS, PAYLOAD_BYTES, PACED_SECONDS = 32, 256, 6
TICKS = os.sysconf("SC_CLK_TCK")
# Longest silence of an adapter: a row that hangs must not hang the run.
PATIENCE_SECONDS = 180
CLASSES = {
    "always": "sync: fsync before the acknowledgement (Redis `appendfsync always`, Formwork's class `sync`)",
    "everysec": "interval: fsync within a second after it (Redis `appendfsync everysec`, Formwork's class `interval`)",
}


def install(cache: Path) -> dict[str, str]:
    """The peers at their pinned versions; answers their programs."""
    if not shutil.which("redis-server") or not shutil.which("node"):
        sys.exit("redis-server and node are needed: on Debian `apt-get install redis-server nodejs npm`")
    python, node = cache / "python", cache / "node"
    pins = [(python, "requirements.txt"), (node, "package-lock.json")]
    for folder, pin in pins:
        if (folder / pin).is_file() and (folder / pin).read_bytes() == (HERE / pin).read_bytes():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing what {pin} names into {folder}", file=sys.stderr)
        if folder == python:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            pip = [folder / "bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
            subprocess.run([*pip, "-r", HERE / pin], check=True)
        else:
            folder.mkdir(parents=True)
            shutil.copy(HERE / "package.json", folder)
            shutil.copy(HERE / pin, folder / "package-lock.json")
            npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(npm, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        # Last, so that half an installation is not taken for one.
        shutil.copy(HERE / pin, folder / pin)
    return {"python": str(python / "bin/python"), "node": shutil.which("node"), "modules": str(node)}


class Redis:
    """A server of its own with an empty folder on the disk that is measured."""

    def __init__(self, fsync: str, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
                    "--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction",
                    "--no-appendfsync-on-rewrite", "no", "--auto-aof-rewrite-percentage", "0"]
        self.process = subprocess.Popen(["redis-server", *settings], stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("redis-server did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def cpu_seconds(roots: list[int]) -> float:
    """CPU time of these processes and all that descend from them, ended ones that were waited for included."""
    parents, used = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = sum(map(int, fields[11:15])) / TICKS
    total = 0.0
    for pid in used:
        ancestor = pid
        while ancestor not in roots and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in roots:
            total += used[pid]
    return total


def run_adapter(adapter: dict, programs: dict, arguments, fsync: str, jobs: int, rate: float) -> dict:
    """One adapter, once; answers its phases by name."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        folder = Path(folder)
        (folder / "redis").mkdir()
        (folder / "runs").mkdir()
        redis = Redis(fsync, folder / "redis")
        program, *rest = adapter["command"]
        environment = dict(
            os.environ,
            QUEUE_REDIS_URL=redis.url,
            QUEUE_CLASS={"always": "sync", "everysec": "everysec"}[fsync],
            QUEUE_JOBS=str(jobs), QUEUE_PRODUCERS=str(arguments.producers), QUEUE_PAYLOAD_BYTES=str(PAYLOAD_BYTES),
            QUEUE_CONCURRENCY="0", QUEUE_RATE=str(rate), QUEUE_SECONDS=str(PACED_SECONDS),
            QUEUE_FOLDER=str(folder / "runs"), QUEUE_FORMWORK=str(arguments.formwork),
            QUEUE_NODE_MODULES=programs["modules"],
        ) | adapter.get("environment", {})
        # Formwork's store goes beside where it is started: on the same disk as Redis' files.
        command = [programs.get(program, program), str(HERE / rest[0]), *rest[1:]]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=folder)
        watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
        watchdog.start()
        phases, cpu = {}, 0.0
        for line in process.stdout:
            event = json.loads(line)
            now = cpu_seconds([process.pid, redis.process.pid])
            if event["event"] == "begin":
                cpu = now
            else:
                phases[event["phase"]] = event | {"cpu_seconds": now - cpu}
        failed = process.wait()
        watchdog.cancel()
        redis.stop()
        if failed:
            raise RuntimeError(f"{adapter['name']} ended with {failed}")
        runs = []
        for file in (folder / "runs").glob("*.runs"):
            runs += [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
        runs = [run for run in runs if run[0] >= 0]
        phases["numbers"] = len({run[0] for run in runs})
        phases["runs"] = len(runs)
        phases["waits_ms"] = sorted((started - sent) / 1000 for _, sent, started in runs)
        return phases


def percentile(ordered: list[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else float("nan")


def measure(arguments, programs: dict, fsync: str, adapters: list[dict]) -> list[dict]:
    rows = [{"name": adapter["name"], "bulk": adapter.get("bulk", False), "enqueued": [], "completed": [], "cpu": [],
             "p50": [], "p95": [], "rate": 0.0, "lost": 0, "doubled": 0} for adapter in adapters]

    def account(row: dict, phases: dict, jobs: int) -> None:
        row["lost"] += jobs - phases["numbers"]
        row["doubled"] += phases["runs"] - phases["numbers"]

    for repeat in range(arguments.repeats):
        for adapter, row in zip(adapters, rows):
            jobs = max(200, int(adapter["jobs"][fsync] * arguments.scale))
            phases = run_adapter(adapter, programs, arguments, fsync, jobs, 0.0)
            enqueue, complete = phases["enqueue"], phases["complete"]
            row["enqueued"].append(jobs / enqueue["seconds"])
            row["completed"].append(complete["jobs"] / complete["seconds"])
            row["cpu"].append(1000 * (enqueue["cpu_seconds"] + complete["cpu_seconds"]) / jobs)
            account(row, phases, jobs)
            print(f"{fsync} {repeat + 1}/{arguments.repeats} {row['name']}: {row['enqueued'][-1]:.0f} enqueued/s, "
                  f"{row['completed'][-1]:.0f} completed/s", file=sys.stderr)
    for repeat in range(arguments.repeats):
        for adapter, row in zip(adapters, rows):
            # What it can do a second when it takes and works off at the same time.
            capacity = 1 / (1 / statistics.median(row["enqueued"]) + 1 / statistics.median(row["completed"]))
            row["rate"] = capacity / 2
            phases = run_adapter(adapter, programs, arguments, fsync, 200, row["rate"])
            row["p50"].append(percentile(phases["waits_ms"], 50))
            row["p95"].append(percentile(phases["waits_ms"], 95))
            account(row, phases, phases["paced"]["jobs"])
    return rows


def shown(values: list[float], digits: int = 0) -> str:
    return (f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
            if len(values) > 1 else f"{values[0]:,.{digits}f}")


def table(rows: list[dict]) -> list[str]:
    lines = ["| row | enqueued/s | completed/s | CPU s per 1,000 | jobs/s at half load | send to start p50 ms | p95 ms | lost | ran twice |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['name']} | {shown(row['enqueued'])} | {shown(row['completed'])} | {shown(row['cpu'], 2)} "
                     f"| {row['rate']:,.0f} | {shown(row['p50'], 1)} | {shown(row['p95'], 1)} "
                     f"| {row['lost']} | {row['doubled']} |")
    return lines


def ratios(rows: list[dict]) -> list[str]:
    """Formwork against the best row of each peer. Repeats ran side by side, so quotients are by repeat."""
    # The rate at which jobs are sent and then worked off, which is what a queue is for.
    for row in rows:
        row["both"] = [1 / (1 / one + 1 / other) for one, other in zip(row["enqueued"], row["completed"])]
    lines = []
    # Peers' clients are a library in the producer's process that talks to Redis: our rows over HTTP do more, that in process less.
    for ours in (row for row in rows if row["name"].startswith("Formwork") and "no-op" in row["name"]):
        # One by one against one by one, many in a call against many in a call.
        comparable = [row for row in rows if row["bulk"] == ours["bulk"]]
        peers = [("Celery (acks_late, reject_on_worker_lost, prefetch 1)",
                  [row for row in comparable if "prefork 2, prefetch 1" in row["name"]], "at least 20x"),
                 ("Celery tuned", [row for row in comparable if row["name"].startswith("Celery, tuned")], ""),
                 ("the best BullMQ row", [row for row in comparable if row["name"].startswith("BullMQ")], "at least 1.5x")]
        lines += ["", f"| {ours['name']} against | enqueued/s | completed/s | both in turn/s | bar |", "|---|---|---|---|---|"]
        for name, chosen, bar in peers:
            if not chosen:
                continue
            cells = []
            for figure in ("enqueued", "completed", "both"):
                best = max(chosen, key=lambda row: statistics.median(row[figure]))
                quotients = [one / other for one, other in zip(ours[figure], best[figure])]
                cells.append(f"{statistics.median(quotients):.1f}x ({best['name']})")
            lines.append(f"| {name} | {' | '.join(cells)} | {bar} |")
    return lines


def machine(programs: dict) -> list[str]:
    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown CPU")
    versions = said(programs["python"], "-c", "import celery, kombu, redis, platform; print('Celery', celery.__version__, "
                    "'kombu', kombu.__version__, 'redis-py', redis.__version__, 'Python', platform.python_version())")
    lock = json.loads((HERE / "package-lock.json").read_text())["packages"]
    bull = ", ".join(f"{name} {lock[f'node_modules/{name}']['version']}" for name in ("bullmq", "ioredis"))
    return [f"- {os.cpu_count()} CPUs, {cpu}; load average before: {os.getloadavg()[0]:.1f}",
            f"- {versions}; {bull}, Node {said(programs['node'], '--version')}; "
            f"{said('redis-server', '--version').split(' sha')[0]}"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--formwork", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--class", dest="classes", choices=CLASSES, action="append")
    parser.add_argument("--producers", type=int, default=PRODUCERS, help="clients that send at once")
    parser.add_argument("--only", help="rows whose name has this text")
    parser.add_argument("--scale", type=float, default=1.0, help="times the jobs of each row")
    arguments = parser.parse_args()
    arguments.formwork = arguments.formwork.resolve()
    arguments.scratch = arguments.cache / "scratch"
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    programs = install(arguments.cache)
    adapters = tomllib.loads((HERE / "adapters.toml").read_text())["adapter"]
    adapters = [adapter for adapter in adapters if (arguments.only or "") in adapter["name"]]
    lines = ["# Queues side by side", "", *machine(programs),
             f"- {arguments.producers} producers, {PAYLOAD_BYTES} B a job, medians of {arguments.repeats} interleaved repeats "
             "(lowest to highest)", ""]
    results = {}
    for fsync in arguments.classes or CLASSES:
        results[fsync] = measure(arguments, programs, fsync, adapters)
        lines += [f"## {CLASSES[fsync]}", "", *table(results[fsync]), *ratios(results[fsync]), ""]
    arguments.report.write_text("\n".join(lines))
    arguments.report.with_suffix(".json").write_text(json.dumps(results, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
