#!/usr/bin/env python3
"""Fits the constants of plugins/classify/src/calibration.rs, and reports how good they are.

Problem: a cosine similarity is not a probability. Promise: the same seed and data print the same constants; nothing of
the test split is seen while fitting. Cost: about six minutes, most of it embedding. Rejected: one threshold on the best
cosine, which depends on how many labels and examples a form has.

The model: a label's evidence is a linear function of its similarities to the text (to its description, to its most
similar example, to its three most similar ones), with weights of their own for 0, 1, 2-3 and more examples. "None of
them" is one more alternative, whose evidence depends on the number of labels, the number of windows the text was cut
into, and the share of labels without examples. The probabilities are the softmax of the evidences, after the evidences of
the labels were scaled: a text of one window is a surer match than the best of many windows. For steps with
`"multiple": true`, a logistic function of a label's lead over "none", over the best other label and over all others in
the same window gives a probability of its own.

Data: random episodes of 3 to 12 labels with 0 to 8 examples each from CLINC150 (train: examples; val and oos_val: the
texts that are fitted; test and oos_test: the report). 20 % of the texts belong to no label: half of them are out of
scope for all of CLINC150, half have another intent than the episode's. Half of the texts are single queries, half are
built of several, so that one sentence among others must be found.

Usage:
    python3 -m venv venv && venv/bin/pip install numpy scipy onnxruntime tokenizers
    venv/bin/python scripts/calibrate_classify.py --clinc150 DATA/clinc150 [--sms-spam DATA/sms-spam] \
        --models "$HOME/.cache/formwork/models" [--cache FOLDER]
"""

import argparse
import json
import math
import pathlib
import random

import numpy as np
import onnxruntime
from scipy.optimize import minimize
from tokenizers import Tokenizer

SEED = 20260314
FIT_EPISODES = 14_000
REPORT_EPISODES = 3_000
FIT_COMPOSITES, REPORT_COMPOSITES = 3_000, 2_000
OUT_OF_SCOPE = 0.2
THRESHOLD = 0.5

# A label's features by number of examples: constant, description[, best example, mean of the best three].
WIDTHS = [2, 4, 4, 4]
STARTS = np.cumsum([0] + WIDTHS)
LABEL_WIDTH = int(STARTS[-1])
# Of "none": constant, ln labels, ln windows, share of labels without examples.
NONE_WIDTH = 4


def bucket(examples):
    """0, 1, 2-3 or more examples."""
    return 0 if examples == 0 else 1 if examples == 1 else 2 if examples <= 3 else 3


class Encoder:
    """all-MiniLM-L6-v2 as the host runs it: mean over the tokens, length one, at most 256 tokens."""

    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(folder / "all-MiniLM-L6-v2-tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "all-MiniLM-L6-v2-int8.onnx"), options)

    def __call__(self, texts):
        ids = [self.tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(ids[index]))
        vectors = np.zeros((len(texts), 384), np.float32)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            width = max(len(ids[index]) for index in batch)
            tokens = np.zeros((len(batch), width), np.int64)
            mask = tokens.copy()
            for row, index in enumerate(batch):
                tokens[row, : len(ids[index])] = ids[index]
                mask[row, : len(ids[index])] = 1
            inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
            states = self.session.run(None, inputs)[0]
            pooled = (states * mask[..., None]).sum(1)
            vectors[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors


class Data:
    """CLINC150 with its vectors and a description for each intent."""

    def __init__(self, folder, descriptions, encoder, cache):
        self.texts = json.loads((folder / "data_full.json").read_text())
        self.vectors = {split: cached(cache, split, lambda s=split: encoder([t for t, _ in self.texts[s]])) for split in self.texts}
        lines = descriptions.read_text().splitlines()
        described = dict(line.split("\t") for line in lines)
        self.intents = sorted(described)
        self.descriptions = dict(zip(self.intents, encoder([described[intent] for intent in self.intents])))
        self.members = {
            split: {intent: [i for i, (_, name) in enumerate(self.texts[split]) if name == intent] for intent in self.intents}
            for split in ("train", "val", "test")
        }


def cached(folder, name, make):
    """An array from the cache folder, or made and put there."""
    if folder is None:
        return make()
    file = folder / f"{name}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    return np.load(file)


def composites(rng, data, split, outside, count):
    """Texts of several sentences: [(parts, intents meant)]; a part is (split, index, intent or None)."""
    made = []
    for _ in range(count):
        meant = rng.choices([0, 1, 2, 3], [0.2, 0.5, 0.2, 0.1])[0]
        filling = rng.choice([0, 0, 1, 2, 3, 5])
        if meant + filling == 0:
            filling = 1
        targets = rng.sample(data.intents, meant)
        parts = [(split, rng.choice(data.members[split][intent]), intent) for intent in targets]
        for _ in range(filling):
            if rng.random() < 0.5:
                parts.append((outside, rng.randrange(len(data.texts[outside])), None))
            else:
                other = rng.choice([intent for intent in data.intents if intent not in targets])
                parts.append((split, rng.choice(data.members[split][other]), other))
        rng.shuffle(parts)
        made.append((parts, targets))
    return made


def windows(data, parts):
    """As plugins/classify/src/windows.rs: sentences, neighbours in pairs, the whole."""
    sentences = [data.texts[split][index][0] for split, index, _ in parts]
    sentences = [text[:1].upper() + text[1:] + "." for text in sentences]
    cut = list(sentences)
    if len(sentences) > 2:
        cut += [" ".join(sentences[i : i + 2]) for i in range(len(sentences) - 1)]
    if len(sentences) > 1:
        cut.append(" ".join(sentences))
    return cut


def embed_windows(data, made, encoder, cache, name):
    cut = [windows(data, parts) for parts, _ in made]
    flat = sorted({text for texts in cut for text in texts})
    vectors = cached(cache, name, lambda: encoder(flat))
    place = {text: index for index, text in enumerate(flat)}
    return [vectors[[place[text] for text in texts]] for texts in cut]


def label_features(text_windows, description, examples):
    """One row a window."""
    rows = np.zeros((len(text_windows), LABEL_WIDTH))
    start = STARTS[bucket(len(examples))]
    rows[:, start] = 1
    rows[:, start + 1] = text_windows @ description
    if len(examples):
        similar = np.sort(text_windows @ examples.T, axis=1)[:, ::-1]
        rows[:, start + 2] = similar[:, 0]
        rows[:, start + 3] = similar[:, :3].mean(1)
    return rows


def none_features(labels, text_windows, without_examples):
    return np.array([1, math.log(labels), math.log(text_windows), without_examples])


def episode(rng, data, split, outside, made, vectors, labels=None, examples=None, single=0.5):
    """(windows x labels x features, none's features, indices of the labels that apply)"""
    count = labels or rng.randint(3, 12)
    shots = examples if examples is not None else rng.choice([0, 0, 1, 2, 3, 4, 5, 6, 8])
    if rng.random() < single:
        off_topic = rng.random() < OUT_OF_SCOPE
        if off_topic and rng.random() < 0.5:
            text = vectors[0][outside][[rng.randrange(len(data.texts[outside]))]]
            targets, avoid = [], []
        else:
            intent = rng.choice(data.intents)
            text = vectors[0][split][[rng.choice(data.members[split][intent])]]
            targets, avoid = ([], [intent]) if off_topic else ([intent], [])
    else:
        index = rng.randrange(len(made))
        parts, targets = made[index]
        text, targets = vectors[1][index], list(targets)
        avoid = [intent for _, _, intent in parts if intent and intent not in targets]
        if targets and rng.random() < OUT_OF_SCOPE:
            targets, avoid = [], avoid + targets
        elif len(targets) > 1 and rng.random() < 0.4:
            rng.shuffle(targets)
            targets, avoid = targets[:1], avoid + targets[1:]
    targets = targets[:count]
    others = [intent for intent in data.intents if intent not in targets and intent not in avoid]
    names = targets + rng.sample(others, count - len(targets))
    rng.shuffle(names)
    equal = examples is not None or rng.random() < 0.7
    shots = [shots] * count if equal else [rng.randint(0, 8) for _ in names]
    rows = []
    for name, shot in zip(names, shots):
        chosen = rng.sample(data.members["train"][name], shot)
        rows.append(label_features(text, data.descriptions[name], data.vectors["train"][chosen] if shot else []))
    none = none_features(count, len(text), np.mean([shot == 0 for shot in shots]))
    return np.stack(rows, 1), none, {names.index(intent) for intent in targets}


def pool(features, weights):
    """For each label its strongest window."""
    evidence = features @ weights
    best = evidence.argmax(0)
    return features[best, np.arange(features.shape[1])], evidence, best


def softmax_rows(episodes, weights):
    rows, answers = [], []
    for features, none, truth in episodes:
        if len(truth) > 1:
            continue
        pooled, _, _ = pool(features, weights)
        row = np.zeros((len(pooled) + 1, LABEL_WIDTH + NONE_WIDTH))
        row[:-1, :LABEL_WIDTH] = pooled
        row[-1, LABEL_WIDTH:] = none
        rows.append(row)
        answers.append(next(iter(truth)) if truth else len(pooled))
    return rows, np.array(answers)


def fit_single(episodes):
    """Alternates between choosing each label's strongest window and fitting the weights."""
    weights = np.zeros(LABEL_WIDTH)
    for start, width in zip(STARTS, WIDTHS):
        weights[start + 1 : start + width - (width > 2)] = 1
    for _ in range(4):
        rows, answers = softmax_rows(episodes, weights)
        size = max(map(len, rows))
        padded = np.zeros((len(rows), size, LABEL_WIDTH + NONE_WIDTH))
        mask = np.full((len(rows), size), -1e9)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
            mask[index, : len(row)] = 0
        everyone = np.arange(len(rows))

        def loss(w):
            scores = padded @ w + mask
            scores -= scores.max(1, keepdims=True)
            p = np.exp(scores)
            p /= p.sum(1, keepdims=True)
            value = -np.log(p[everyone, answers] + 1e-12).mean()
            p[everyone, answers] -= 1
            return value + 1e-4 * (w**2).sum(), np.einsum("im,imf->f", p, padded) / len(rows) + 2e-4 * w

        found = minimize(loss, np.zeros(LABEL_WIDTH + NONE_WIDTH), jac=True, method="L-BFGS-B", options={"maxiter": 3000})
        weights = found.x[:LABEL_WIDTH]
    regimes = {single: fit_regime(episodes, weights, found.x[LABEL_WIDTH:], single) for single in (True, False)}
    return (weights, regimes), found.fun


def fit_regime(episodes, weights, none, single):
    """(scale of the labels' evidence, none's weights) for texts of one window, or of several."""
    chosen = [e for e in episodes if (len(e[0]) == 1) == single and len(e[2]) <= 1]
    evidence = [(features @ weights).max(0) for features, _, _ in chosen]

    def loss(w):
        total = 0.0
        for own, (_, features, truth) in zip(evidence, chosen):
            scores = np.append(own * w[0], features @ w[1:])
            scores -= np.logaddexp.reduce(scores)
            total -= scores[next(iter(truth)) if truth else -1]
        return total / len(chosen) + 1e-4 * (w**2).sum()

    return minimize(loss, np.append(1.0, none), method="L-BFGS-B").x


def evidences(features, none, fitted):
    """The labels' evidence in each window, and that of "none"."""
    weights, regimes = fitted
    regime = regimes[len(features) == 1]
    return (features @ weights) * regime[0], none @ regime[1:]


def leads(features, none, weights):
    """For each label in its strongest window: constant, lead over none, over the best other, over all others."""
    evidence, none = evidences(features, none, weights)
    best = evidence.argmax(0)
    rows = []
    for label, window in enumerate(best):
        own = evidence[window, label]
        others = np.delete(evidence[window], label)
        rows.append([1, own - none, own - others.max(), own - np.logaddexp.reduce(np.append(others, none))])
    return np.array(rows)


def fit_multiple(episodes, weights):
    rows = [leads(features, none, weights) for features, none, _ in episodes]
    truth = np.concatenate([[float(label in t) for label in range(len(r))] for r, (_, _, t) in zip(rows, episodes)])
    rows = np.concatenate(rows)

    def loss(w):
        p = 1 / (1 + np.exp(-rows @ w))
        value = -(truth * np.log(p + 1e-9) + (1 - truth) * np.log(1 - p + 1e-9)).mean()
        return value + 1e-5 * (w**2).sum(), rows.T @ (p - truth) / len(truth) + 2e-5 * w

    return minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B").x


def calibration_error(confidence, right):
    """Expected calibration error over ten equal bins."""
    confidence, right = np.array(confidence), np.array(right, float)
    bins = np.minimum((confidence * 10).astype(int), 9)
    return sum((bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean()) for b in set(bins))


def report_single(episodes, fitted):
    confidence, right, accepted, inside, outside = [], [], [], [], []
    for features, none, truth in episodes:
        if len(truth) > 1:
            continue
        evidence, none = evidences(features, none, fitted)
        scores = np.append(evidence.max(0), none)
        p = np.exp(scores - np.logaddexp.reduce(scores))[:-1]
        best = p.argmax()
        rejected = p[best] < THRESHOLD
        confidence.append(p[best])
        right.append(best in truth)
        if not truth:
            outside.append(rejected)
        else:
            inside.append(not rejected and best in truth)
            if not rejected:
                accepted.append(best in truth)
    return {
        "accuracy of accepted": np.mean(accepted), "in scope right": np.mean(inside),
        "oos recall": np.mean(outside), "ece": calibration_error(confidence, right),
    }


def report_multiple(episodes, weights, multiple):
    hit = given = wanted = 0
    confidence, right, empty = [], [], []
    for features, none, truth in episodes:
        p = 1 / (1 + np.exp(-leads(features, none, weights) @ multiple))
        got = {label for label in range(len(p)) if p[label] >= THRESHOLD}
        hit, given, wanted = hit + len(got & truth), given + len(got), wanted + len(truth)
        confidence += list(p)
        right += [label in truth for label in range(len(p))]
        if not truth:
            empty.append(not got)
    return {"precision": hit / given, "recall": hit / wanted, "oos recall": np.mean(empty), "ece": calibration_error(confidence, right)}


def report_spam(folder, encoder, weights):
    """Two labels of another kind of text, never fitted: ham and spam with five examples each."""
    rng = random.Random(SEED)
    lines = [line.split("\t", 1) for line in (folder / "sms-spam.tsv").read_text().splitlines()]
    rng.shuffle(lines)
    by = {name: [text for label, text in lines if label == name] for name in ("ham", "spam")}
    described = encoder(["An ordinary message from a friend or relative.", "Unwanted advertising, a prize, a paid service."])
    scores = []
    for _ in range(5):
        chosen = [rng.sample(by[name][200:], 5) for name in ("ham", "spam")]
        examples = [encoder(texts) for texts in chosen]
        confidence, right = [], []
        for truth, name in enumerate(("ham", "spam")):
            for vector in encoder(by[name][:150]):
                rows = np.stack([label_features(vector[None], d, e) for d, e in zip(described, examples)], 1)
                evidence, none = evidences(rows, none_features(2, 1, 0), weights)
                s = np.append(evidence[0], none)
                p = np.exp(s - np.logaddexp.reduce(s))
                confidence.append(p[:2].max())
                right.append(p[:2].argmax() == truth)
        accepted = [r for c, r in zip(confidence, right) if c >= THRESHOLD]
        scores.append((np.mean(right), np.mean(accepted), len(accepted) / len(right), calibration_error(confidence, right)))
    return dict(zip(("accuracy of best", "accuracy of accepted", "accepted", "ece"), np.mean(scores, 0)))


def shown(report):
    return ", ".join(f"{name} {value:.3f}" for name, value in report.items())


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc150", type=pathlib.Path, required=True)
    parser.add_argument("--sms-spam", type=pathlib.Path)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--cache", type=pathlib.Path)
    arguments = parser.parse_args()

    encoder = Encoder(arguments.models)
    descriptions = here.parent / "plugins/classify/calibration/clinc150-descriptions.tsv"
    data = Data(arguments.clinc150, descriptions, encoder, arguments.cache)
    rng = random.Random(SEED)
    fit_made = composites(rng, data, "val", "oos_val", FIT_COMPOSITES)
    fit_vectors = (data.vectors, embed_windows(data, fit_made, encoder, arguments.cache, "fit_windows"))
    report_made = composites(rng, data, "test", "oos_test", REPORT_COMPOSITES)
    report_vectors = (data.vectors, embed_windows(data, report_made, encoder, arguments.cache, "report_windows"))

    episodes = [episode(rng, data, "val", "oos_val", fit_made, fit_vectors) for _ in range(FIT_EPISODES)]
    weights, loss = fit_single(episodes)
    multiple = fit_multiple(episodes, weights)
    print(f"loss {loss:.4f}")
    for (start, width), name in zip(zip(STARTS, WIDTHS), ("0 examples", "1 example", "2-3 examples", "4 or more")):
        print(f"label, {name}: {np.round(weights[0][start : start + width], 3).tolist()}")
    for single, name in ((True, "one window"), (False, "several windows")):
        print(f"scale, none, {name}: {np.round(weights[1][single], 3).tolist()}")
    print(f"multiple: {np.round(multiple, 3).tolist()}")
    for labels, examples in ((6, 0), (6, 1), (6, 3), (6, 5), (3, 5), (12, 5), (12, 0)):
        for kind, single in (("one query", 1), ("several sentences", 0)):
            sample = [
                episode(rng, data, "test", "oos_test", report_made, report_vectors, labels, examples, single)
                for _ in range(REPORT_EPISODES)
            ]
            print(f"{labels} labels, {examples} examples, {kind}: {shown(report_single(sample, weights))}", flush=True)
            print(f"    multiple: {shown(report_multiple(sample, weights, multiple))}", flush=True)
    if arguments.sms_spam:
        print(f"sms-spam, 2 labels, 5 examples: {shown(report_spam(arguments.sms_spam, encoder, weights))}")


if __name__ == "__main__":
    main()
