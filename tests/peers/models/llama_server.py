"""llama.cpp's server as xllamacpp packages it: llama_server.py MODEL THREADS, lines of JSON in and out.

Asked in its own process, without HTTP; the rate is the one that the server itself counts.
"""

import json
import os
import sys

import xllamacpp

MODEL, THREADS = sys.argv[1], int(sys.argv[2])
CONTEXT = 2048


def main() -> None:
    # The library prints to standard output; answers have it for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = xllamacpp.CommonParams()
    settings.model.path = MODEL
    settings.n_ctx, settings.n_parallel, settings.port = CONTEXT, 1, 0
    settings.verbosity = 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = THREADS
    server = xllamacpp.Server(settings)
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        messages = [{"role": "user", "content": work["prompt"]}]
        answer = server.handle_chat_completions({"messages": messages, "max_tokens": work["max_tokens"], "temperature": 0,
                                                 "cache_prompt": True})
        answer = answer if isinstance(answer, dict) else json.loads(answer)
        timings = answer["timings"]
        print(json.dumps({"tokens_per_second": timings["predicted_per_second"], "tokens": timings["predicted_n"],
                          "prompt_ms": timings["prompt_ms"]}), file=answers, flush=True)


if __name__ == "__main__":
    main()
