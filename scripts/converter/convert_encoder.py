#!/usr/bin/env python3
"""Turns a BERT-like sentence encoder (safetensors) into ONNX files that Formwork loads: fp32 and int8.

    convert_encoder.py MODEL_FOLDER OUT_FOLDER [--name NAME] [--compare FILE.onnx]

MODEL_FOLDER holds config.json, model.safetensors and tokenizer.json, as hubs have them. OUT_FOLDER gets NAME-fp32.onnx,
NAME-int8.onnx and NAME-tokenizer.json, and what to write into formwork.toml is printed with the files' sha256.

Problem:  an export through PyTorch takes 4.8 GB of packages and writes another graph with every version.
Promise:  the graph is written node by node from the weights; both files are then run by ONNX Runtime and compared with
          the same arithmetic in numpy at 64 bits, which shares no code with them: the cosines are printed, and exit code 1
          says that one is below its bar.
Cost:     BERT's architecture only (post-norm, absolute positions, GELU), which most small sentence encoders have. Others
          are exported with their own tools; the comparison takes any file (--compare).
Rejected: ONNX Runtime's own dynamic quantisation, which rounds activations by tensor too (cosine 0.972 at worst with this
          model, where rounding the weights alone keeps 0.99). int8 here means weights, one scale for each output or word;
          `inference.integer_arithmetic` lets Formwork compute with int8 as well.
"""

import argparse
import hashlib
import json
import math
import pathlib
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

OPSET = 17  # LayerNormalization came with it
IR_VERSION = 8  # what belongs to it
FP32_BAR, INT8_BAR = 0.9999, 0.98

SENTENCES = [
    "ok",
    "I want my money back",
    "Where is my parcel?",
    "The app crashes when I open the cart",
    "My card was charged twice for the same order",
    "Please cancel my subscription at the end of the month.",
    "Wie kann ich meine Bestellung zurückgeben?",
    "The parcel of order A-10427 arrived crushed on 14 March 2026, and 49.90 EUR are still missing.",
    "Dear Sir or Madam, " + "I have written to you several times about the noise in the flat above mine. " * 6,
    "12345 67890 !!! ???",
    "Is this jacket waterproof, and when will the blue one be in stock again?",
    "I cannot log in any more, the password reset mail never arrives.",
]


def sizes(folder):
    config = json.loads((folder / "config.json").read_text())
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            sys.exit(f"convert_encoder: {key} is {config[key]!r}, only {value!r} is known here")
    return config


def weights(folder):
    tensors = {name.removeprefix("bert."): value for name, value in load_file(folder / "model.safetensors").items()}
    if "embeddings.word_embeddings.weight" not in tensors:
        sys.exit("convert_encoder: model.safetensors has no embeddings.word_embeddings.weight: not a BERT encoder")
    return tensors


def build(config, tensors, int8):
    """The graph: ids, mask and types in, the last hidden state out; the large weights as int8 or as they are."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    nodes, initialisers = [], []

    def constant(name, value):
        initialisers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def parameter(name, transposed=False):
        value = tensors[name].astype(np.float32)
        # One scale for each output of a product (a column), or for each row of a table.
        axis, value = (0, value.T) if transposed else (1, value)
        if not int8 or value.ndim < 2:
            return constant(name, value)
        scale = np.maximum(np.abs(value).max(axis, keepdims=True) / 127, np.float32(1e-12))
        rounded = constant(f"{name}/int8", np.clip(np.rint(value / scale), -127, 127).astype(np.int8))
        wide = node("Cast", [rounded], f"{name}/wide", to=TensorProto.FLOAT)
        return node("Mul", [wide, constant(f"{name}/scale", scale)], name)

    def linear(x, prefix):
        product = node("MatMul", [x, parameter(f"{prefix}.weight", transposed=True)], f"{prefix}/matmul")
        return node("Add", [product, parameter(f"{prefix}.bias")], f"{prefix}/out")

    def norm(x, prefix):
        inputs = [x, parameter(f"{prefix}.weight"), parameter(f"{prefix}.bias")]
        return node("LayerNormalization", inputs, f"{prefix}/out", axis=-1, epsilon=config["layer_norm_eps"])

    # Embeddings: words, positions 0.. and types.
    words = node("Gather", [parameter("embeddings.word_embeddings.weight"), "input_ids"], "words")
    types = node("Gather", [parameter("embeddings.token_type_embeddings.weight"), "token_type_ids"], "types")
    length = node("Gather", [node("Shape", ["input_ids"], "shape"), constant("one", np.array([1], np.int64))], "length")
    axis, zero = constant("first", np.array([0], np.int64)), constant("zero", np.array([0], np.int64))
    positions = node("Slice", [parameter("embeddings.position_embeddings.weight"), zero, length, axis], "positions")
    x = norm(node("Add", [node("Add", [words, types], "words+types"), positions], "sum"), "embeddings.LayerNorm")

    # What is padding is as good as never looked at.
    mask = node("Cast", ["attention_mask"], "mask/float", to=TensorProto.FLOAT)
    mask = node("Unsqueeze", [mask, constant("mask/axes", np.array([1, 2], np.int64))], "mask/wide")
    mask = node("Sub", [constant("mask/one", np.array(1, np.float32)), mask], "mask/inverse")
    mask = node("Mul", [mask, constant("mask/low", np.array(-10000.0, np.float32))], "mask/out")

    split = constant("split", np.array([0, 0, heads, hidden // heads], np.int64))
    joined = constant("joined", np.array([0, 0, hidden], np.int64))
    scale = constant("scale", np.array(1 / math.sqrt(hidden // heads), np.float32))
    half, one = constant("gelu/half", np.array(0.5, np.float32)), constant("gelu/one", np.array(1, np.float32))
    root = constant("gelu/root", np.array(1 / math.sqrt(2), np.float32))
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"

        def part(name, order, x=x, at=at):
            parts = node("Reshape", [linear(x, f"{at}.attention.self.{name}"), split], f"{at}/{name}/split")
            return node("Transpose", [parts], f"{at}/{name}/turned", perm=order)

        query, key, value = part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]), part("value", [0, 2, 1, 3])
        scores = node("Mul", [node("MatMul", [query, key], f"{at}/scores"), scale], f"{at}/scaled")
        shares = node("Softmax", [node("Add", [scores, mask], f"{at}/masked")], f"{at}/shares", axis=-1)
        seen = node("Transpose", [node("MatMul", [shares, value], f"{at}/seen")], f"{at}/back", perm=[0, 2, 1, 3])
        seen = linear(node("Reshape", [seen, joined], f"{at}/joined"), f"{at}.attention.output.dense")
        x = norm(node("Add", [seen, x], f"{at}/attended"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        bent = node("Erf", [node("Mul", [inner, root], f"{at}/gelu/in")], f"{at}/gelu/erf")
        bent = node("Mul", [inner, node("Add", [bent, one], f"{at}/gelu/up")], f"{at}/gelu/twice")
        inner = linear(node("Mul", [bent, half], f"{at}/gelu/out"), f"{at}.output.dense")
        x = norm(node("Add", [inner, x], f"{at}/added"), f"{at}.output.LayerNorm")
    node("Identity", [x], "last_hidden_state")

    of = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
    inputs = [of(n, TensorProto.INT64, ["batch", "tokens"]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    outputs = [of("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", hidden])]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="formwork")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def reference(config, tensors, ids):
    """One text through the same network in numpy, 64 bits, nothing shared with the graph."""
    w = lambda name: tensors[name].astype(np.float64)
    heads = config["num_attention_heads"]

    def norm(x, at):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"]) * w(at + ".weight") + w(at + ".bias")

    dense = lambda x, at: x @ w(at + ".weight").T + w(at + ".bias")
    erf = np.vectorize(math.erf)
    x = w("embeddings.word_embeddings.weight")[ids] + w("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + w("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        q, k, v = (dense(x, f"{at}.attention.self.{n}").reshape(len(ids), heads, -1).swapaxes(0, 1) for n in ("query", "key", "value"))
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        seen = (shares @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(dense(seen, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(dense(inner, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    return pooled(x, np.ones(len(ids)))


def pooled(states, mask):
    vector = (states * mask[:, None]).sum(0) / mask.sum()
    return vector / np.linalg.norm(vector)


def vectors(file, encodings):
    """All texts in one padded batch, as Formwork runs them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    ids = np.array([e.ids for e in encodings], np.int64)
    mask = np.array([e.attention_mask for e in encodings], np.int64)
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    names = {i.name for i in session.get_inputs()}
    (states,) = session.run(["last_hidden_state"], {k: v for k, v in feeds.items() if k in names})
    return [pooled(s.astype(np.float64), m) for s, m in zip(states, mask)]


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path, help="folder with config.json, model.safetensors, tokenizer.json")
    parser.add_argument("out", type=pathlib.Path, help="folder for the ONNX files")
    parser.add_argument("--name", default="encoder", help="what the files' names begin with")
    parser.add_argument("--compare", type=pathlib.Path, action="append", default=[], help="another ONNX file of the same encoder")
    options = parser.parse_args()
    config, tensors = sizes(options.model), weights(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    fp32, int8 = (options.out / f"{options.name}-{kind}.onnx" for kind in ("fp32", "int8"))
    tokenizer_file = options.out / f"{options.name}-tokenizer.json"
    shutil.copyfile(options.model / "tokenizer.json", tokenizer_file)
    onnx.save(build(config, tensors, int8=False), fp32)
    onnx.save(build(config, tensors, int8=True), int8)

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.enable_truncation(min(256, config["max_position_embeddings"]))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(SENTENCES)
    wanted = [reference(config, tensors, [i for i, m in zip(e.ids, e.attention_mask) if m]) for e in encodings]
    missed = 0
    print(f"cosine with the weights computed in numpy at 64 bits, {len(SENTENCES)} texts:")
    for file, bar in [(fp32, FP32_BAR), (int8, INT8_BAR), *((file, None) for file in options.compare)]:
        cosines = [float(a @ b) for a, b in zip(wanted, vectors(file, encodings))]
        met = bar is None or min(cosines) >= bar
        missed += not met
        held = "" if bar is None else f", at least {bar}: {'yes' if met else 'NO'}"
        print(f"  {file.name}: least {min(cosines):.6f}, mean {np.mean(cosines):.6f}{held}; {file.stat().st_size:,} bytes")
    print("\nIn formwork.toml:\n")
    for file in (fp32, int8):
        print(f'[[models]]\nname = "encoder"\nversion = "{file.stem}"\nfile = {{ path = "{file}", sha256 = "{sha256(file)}" }}')
        print(f'task = {{ kind = "encoder", tokenizer = {{ path = "{tokenizer_file}", sha256 = "{sha256(tokenizer_file)}" }} }}\n')
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
