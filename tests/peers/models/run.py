#!/usr/bin/env python3
"""Formwork's models, and those who run the same files: Python onnxruntime, PyTorch, llama.cpp's server; in one run.

Problem:  embeddings and tokens a second that are published differ in machine, threads, texts and what is counted.
Promise:  the same model files and texts, the same number of threads, rounds that take turns, so that what else the machine
          does meets all; vectors are compared, not only timed. Formwork is measured through a plugin in its sandbox.
Cost:     about 10 minutes, and 5 GB for PyTorch, whose package brings libraries for graphics cards that are not used.
Rejected: each project's own bench: other texts, another clock.

run.py --formwork PROGRAM --models FOLDER --cache FOLDER --report FILE [--rounds N] [--threads N]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENCODER, TOKENIZER, GENERATOR = ("all-MiniLM-L6-v2-int8.onnx", "all-MiniLM-L6-v2-tokenizer.json",
                                 "SmolLM2-135M-Instruct.Q4_1.gguf")
SEED = 20260314
# Texts of the throughput row, and how many one call or batch of a peer's takes.
TEXTS, BATCH = 256, 32
SINGLES = 40
WINDOW = 256
STORY, STORY_TOKENS = "Tell me a long story about a lost bicycle.", 128


def install(cache: Path) -> Path:
    """The peers at their pinned versions; answers their Python."""
    folder, pins = cache / "python", HERE / "requirements.txt"
    done = folder / pins.name
    if not done.is_file() or done.read_bytes() != pins.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"installing what {pins.name} names into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-r", pins], check=True)
        # Last, so that half an installation is not taken for one.
        shutil.copy(pins, done)
    return folder / "bin/python"


class Process:
    """A program that answers each line of JSON with a line of JSON."""

    def __init__(self, command: list, **options):
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, **options)
        self.ready = self.hear()

    def hear(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[:3]} ended; it says why above")
        return json.loads(line)

    def ask(self, **work) -> dict:
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def formwork(arguments, config: Path, model: str, threads: int, pinned: bool = False) -> Process:
    command = ["taskset", "-c", "0"] if pinned else []
    command += [arguments.formwork, "model", "bench", "--worker", model, "--config", config, "--threads", threads]
    return Process(command)


def texts_of_words(tokenizer: Path, count: int, lengths) -> list[str]:
    """Distinct texts of whole words, each of so many tokens with the two marks around them."""
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    words = sorted(word for word in vocabulary if word.isascii() and word.isalpha() and 3 <= len(word) <= 9)
    chance = random.Random(SEED)
    return [" ".join(chance.choices(words, k=lengths(chance) - 2)) for _ in range(count)]


def percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Rounds ran side by side, so quotients are by round."""
    return statistics.median(one / other for one, other in zip(ours, theirs))


class Report:
    def __init__(self):
        self.lines, self.figures = [], {}

    def table(self, title: str, head: list[str], rows: list[list]) -> None:
        self.lines += [f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        self.lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows] + [""]
        self.figures[title] = [dict(zip(head, row)) for row in rows]

    def bar(self, what: str, value: float, bar: float, at_least: bool, unit: str = "") -> list:
        met = value >= bar if at_least else value <= bar
        return [what, f"{value:.4g}{unit}", f"{'at least' if at_least else 'at most'} {bar:g}{unit}", "met" if met else "missed"]


def embeddings(arguments, config: Path, python: Path, report: Report, bars: list) -> None:
    tokenizer = arguments.models / TOKENIZER
    peers = Process([python, HERE / "embed.py", arguments.models / ENCODER, tokenizer, arguments.threads, WINDOW])
    ours = formwork(arguments, config, "encoder", arguments.threads)
    exact = formwork(arguments, config, "encoder-float32", arguments.threads)
    singles = texts_of_words(tokenizer, SINGLES * (arguments.rounds + 1), lambda chance: 16)
    # As sentences of forms are: most short, a few long.
    mixed = texts_of_words(tokenizer, TEXTS * (arguments.rounds + 1),
                           lambda chance: min(WINDOW, max(5, int(chance.lognormvariate(3.0, 0.7)))))
    rows = {
        "Formwork, through a plugin": lambda calls: ours.ask(do="embed", route="plugin", model="encoder", calls=calls)["ms"],
        "Formwork, the service alone": lambda calls: ours.ask(do="embed", route="service", model="encoder", calls=calls)["ms"],
        "Formwork, float32 file, through a plugin":
            lambda calls: exact.ask(do="embed", route="plugin", model="encoder-float32", calls=calls)["ms"],
        "Python onnxruntime + tokenizers": lambda calls: peers.ask(who="onnxruntime", calls=calls, batch=BATCH)["ms"],
        "PyTorch float32": lambda calls: peers.ask(who="torch", calls=calls, batch=BATCH)["ms"],
    }
    single, rate = {name: [] for name in rows}, {name: [] for name in rows}
    for number in range(arguments.rounds + 1):
        for name, run in rows.items():
            times = run([[text] for text in singles[number * SINGLES:(number + 1) * SINGLES]])
            if number > 0:
                single[name].append(times)
        for name, run in rows.items():
            times = run([mixed[number * TEXTS:(number + 1) * TEXTS]])
            if number > 0:
                rate[name].append(TEXTS * 1000 / sum(times))
        print(f"embeddings {number}/{arguments.rounds}", file=sys.stderr)
    table = []
    for name in rows:
        times = sum(single[name], [])
        table.append([name, f"{percentile(times, 50):.2f}", f"{percentile(times, 95):.2f}",
                      f"{statistics.median(rate[name]):.0f}"])
    report.table(f"all-MiniLM-L6-v2, {arguments.threads} thread(s)",
                 ["row", "16 tokens p50 ms", "p95 ms", f"texts/s, {TEXTS} of mixed length in one call"], table)
    plugin, _, _, onnx, torch = rows
    bars.append(report.bar("MiniLM, 16 tokens, through a plugin, p50", percentile(sum(single[plugin], []), 50), 4, False, " ms"))
    bars.append(report.bar("MiniLM, throughput against Python onnxruntime", median_ratio(rate[plugin], rate[onnx]), 1.2, True, "x"))
    bars.append(report.bar("MiniLM, throughput against PyTorch float32", median_ratio(rate[plugin], rate[torch]), 5, True, "x"))

    corpus = mixed[:200] + real_texts(arguments.data)
    reference = peers.ask(who="torch", calls=[corpus], batch=BATCH, vectors=True)["vectors"]
    compared = {
        "Formwork, the int8 file": ours.ask(do="embed", route="service", model="encoder", calls=[corpus], vectors=True)["vectors"],
        "Formwork, the float32 file":
            exact.ask(do="embed", route="service", model="encoder-float32", calls=[corpus], vectors=True)["vectors"],
        "Python onnxruntime, the int8 file": peers.ask(who="onnxruntime", calls=[corpus], batch=BATCH, vectors=True)["vectors"],
    }
    table = []
    for name, vectors in compared.items():
        cosines = [sum(a * b for a, b in zip(one, other)) for one, other in zip(vectors, reference)]
        table.append([name, f"{statistics.mean(cosines):.5f}", f"{percentile(cosines, 1):.5f}", f"{min(cosines):.5f}"])
        if name.startswith("Formwork"):
            int8 = "int8" in name
            bars.append(report.bar(f"cosine with PyTorch float32, {'int8' if int8 else 'float32'} file, least of {len(corpus)}",
                                   min(cosines), 0.98 if int8 else 0.9999, True))
    report.table(f"Cosine with PyTorch float32, {len(corpus)} texts", ["row", "mean", "1 in 100 below", "least"], table)
    for process in (peers, ours, exact):
        process.stop()


def real_texts(data: Path | None) -> list[str]:
    """Texts that people wrote, where the data sets lie beside the clone."""
    if data is None or not (data / "clinc150").is_dir():
        return []
    queries = [text for text, _ in json.loads((data / "clinc150/data_full.json").read_text())["test"]]
    messages = [line.split("\t", 1)[1] for line in (data / "sms-spam/sms-spam.tsv").read_text().splitlines() if "\t" in line]
    return queries[::20][:150] + messages[::10][:150]


def generation(arguments, config: Path, python: Path, report: Report, bars: list) -> None:
    server = Process([python, HERE / "llama_server.py", arguments.models / GENERATOR, arguments.threads])
    ours = formwork(arguments, config, "generator", arguments.threads)
    ask = dict(do="generate", model="generator", system="", prompt=STORY, max_tokens=STORY_TOKENS)

    def rate(route: str) -> float:
        run = ours.ask(route=route, **ask)
        return 1000 * (run["output_tokens"] - 1) / (run["total_ms"] - run["first_ms"])

    rows = {
        "Formwork, through a plugin": lambda: rate("plugin"),
        "Formwork, the service alone": lambda: rate("service"),
        "llama.cpp's server (xllamacpp)": lambda: server.ask(prompt=STORY, max_tokens=STORY_TOKENS)["tokens_per_second"],
    }
    rates = {name: [] for name in rows}
    for number in range(arguments.rounds + 1):
        for name, run in rows.items():
            value = run()
            if number > 0:
                rates[name].append(value)
        print(f"generation {number}/{arguments.rounds}", file=sys.stderr)
    report.table(f"SmolLM2-135M Q4_1, {arguments.threads} thread(s), {STORY_TOKENS} greedy tokens, prompt kept",
                 ["row", "tokens/s after the first"],
                 [[name, f"{statistics.median(values):.1f}"] for name, values in rates.items()])
    bars.append(report.bar("generation against llama.cpp's server, tokens/s",
                           median_ratio(rates["Formwork, through a plugin"], rates["llama.cpp's server (xllamacpp)"]),
                           0.97, True, "x"))
    server.stop()
    ours.stop()


def too_many_threads(arguments, config: Path, report: Report, bars: list) -> None:
    """One CPU: what the best number of threads does, and what asking for eight does."""
    workers = {threads: formwork(arguments, config, "generator", threads, pinned=True) for threads in (1, 8)}
    ask = dict(do="generate", route="plugin", model="generator", system="", prompt=STORY, max_tokens=STORY_TOKENS)
    rates = {threads: [] for threads in workers}
    for number in range(arguments.rounds + 1):
        for threads, worker in workers.items():
            run = worker.ask(**ask)
            if number > 0:
                rates[threads].append(1000 * (run["output_tokens"] - 1) / (run["total_ms"] - run["first_ms"]))
    report.table("Threads asked for on one CPU", ["threads", "tokens/s"],
                 [[threads, f"{statistics.median(values):.1f}"] for threads, values in rates.items()])
    bars.append(report.bar("8 threads asked for on one CPU, against 1", median_ratio(rates[8], rates[1]), 0.9, True, "x"))
    for worker in workers.values():
        worker.stop()


def write_config(arguments, python: Path) -> Path:
    """The models of `make setup`, and the encoder's original weights as a file of their own."""
    floats = arguments.cache / "all-MiniLM-L6-v2-float32.onnx"
    if not floats.is_file():
        command = [python, HERE / "float32_onnx.py", arguments.models / ENCODER, floats]
        subprocess.run([str(part) for part in command], check=True)

    def file(path: Path) -> str:
        return f'{{ path = "{path}", sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}" }}'

    encoder = f'{{ kind = "encoder", max_tokens = {WINDOW}, tokenizer = {file(arguments.models / TOKENIZER)} }}'
    models = [("encoder", arguments.models / ENCODER, encoder), ("encoder-float32", floats, encoder),
              ("generator", arguments.models / GENERATOR, '{ kind = "generator" }')]
    config = arguments.cache / "formwork.toml"
    config.write_text("".join(f'[[models]]\nname = "{name}"\nversion = "1"\nfile = {file(path)}\ntask = {task}\n'
                              for name, path, task in models))
    return config


def machine(python: Path) -> list[str]:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown CPU")
    versions = subprocess.run([python, "-c", "import onnxruntime, tokenizers, torch, xllamacpp, platform; print("
                               "'onnxruntime', onnxruntime.__version__ + ', tokenizers', tokenizers.__version__ + ', PyTorch', "
                               "torch.__version__ + ', xllamacpp', xllamacpp.__version__ + ', Python', platform.python_version())"],
                              capture_output=True, text=True).stdout.strip()
    return [f"- {os.cpu_count()} CPUs, {cpu}; load average before: {os.getloadavg()[0]:.1f}", f"- {versions}"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--formwork", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="the folder that `make setup` fills")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("FORMWORK_TEST_DATA"), help="texts that people wrote")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["embeddings", "generation", "threads"], action="append")
    arguments = parser.parse_args()
    arguments.formwork, arguments.models = arguments.formwork.resolve(), arguments.models.resolve()
    arguments.cache = arguments.cache.resolve()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    # One thread is one thread for all.
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(arguments.threads)}
    python = install(arguments.cache)
    config = write_config(arguments, python)
    report, bars = Report(), []
    parts = {"embeddings": lambda: embeddings(arguments, config, python, report, bars),
             "generation": lambda: generation(arguments, config, python, report, bars),
             "threads": lambda: too_many_threads(arguments, config, report, bars)}
    for name in arguments.only or parts:
        parts[name]()
    report.table("Bars", ["what", "value", "bar", ""], bars)
    head = ["# Models side by side", "", *machine(python), f"- medians of {arguments.rounds} interleaved rounds; ratios within rounds", ""]
    text = "\n".join(head + report.lines)
    arguments.report.write_text(text)
    arguments.report.with_suffix(".json").write_text(json.dumps(report.figures, indent=1))
    print(text)


if __name__ == "__main__":
    main()
