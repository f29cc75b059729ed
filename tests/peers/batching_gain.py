#!/usr/bin/env python3
"""What evaluating several texts in one native step gains: batching_gain.py MODEL.gguf [--threads N] [--texts N]

    pip install --target xl xllamacpp==2026.10.11549
    PYTHONPATH=xl python3 tests/peers/batching_gain.py ~/.cache/formwork/models/SmolLM2-135M-Instruct.Q4_1.gguf

Two servers of llama.cpp, one with a slot for each text (continuous batching) and one with a single slot, are asked for the
same texts at the same time, in turns; printed are tokens a second over all texts, and the median ratio over rounds. Why
Formwork's generator does not batch: docs/decisions/0013-one-token-at-a-time.md.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import sys
import time

import xllamacpp


def server(model, threads, slots):
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    # As much context for each text in both.
    settings.n_ctx, settings.n_parallel, settings.port = 1024 * slots, slots, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    return xllamacpp.Server(settings)


def write(server, number, tokens):
    messages = [{"role": "user", "content": f"Tell me a long story about the number {number}."}]
    answer = server.handle_chat_completions({"messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True})
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    return answer["timings"]["predicted_n"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    # The library prints to standard output; the figures have it for themselves.
    figures = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    servers = {slots: server(options.model, options.threads, slots) for slots in (1, options.texts)}
    rates = {slots: [] for slots in servers}
    with concurrent.futures.ThreadPoolExecutor(options.texts) as pool:
        for _ in range(options.rounds):
            for slots, running in servers.items():
                began = time.perf_counter()
                tokens = sum(pool.map(lambda n: write(running, n, options.tokens), range(options.texts)))
                rates[slots].append(tokens / (time.perf_counter() - began))
    for slots, values in rates.items():
        print(f"{slots} slots: median {statistics.median(values):.1f} tokens/s of all {options.texts} texts", file=figures)
    ratio = statistics.median(many / one for one, many in zip(rates[1], rates[options.texts]))
    print(f"{options.texts} slots over one, {options.threads} threads: {ratio:.2f}", file=figures)


if __name__ == "__main__":
    sys.exit(main())
