"""A slow and plain second opinion: reads the exported GGUF and runs it with numpy alone.

Shares nothing with the trainer but the formulas, so an agreement between the two, and between
either and the runtime, means something. Float arithmetic is f32; the ternary dot products are
integers below 2^24 and therefore exact in f32 in any order.
"""

import argparse
import json
import os
import struct
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the products are small; waiting threads cost more than they give

import numpy as np

import tokenizer

HERE = Path(__file__).parent
F = np.float32


def read_gguf(path):
    """(metadata, tensors): I2_S tensors as (trits as f32 [n, k], scale), all others as f32 arrays."""
    blob = Path(path).read_bytes()
    at = 0

    def take(fmt):
        nonlocal at
        value = struct.unpack_from("<" + fmt, blob, at)
        at += struct.calcsize("<" + fmt)
        return value[0]

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return blob[at - size : at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            kind, count = take("I"), take("Q")
            return [value(kind) for _ in range(count)]
        return take({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

    assert blob[:4] == b"GGUF"
    at = 4
    assert take("I") == 3
    n_tensors, n_keys = take("Q"), take("Q")
    meta = {}
    for _ in range(n_keys):
        key = text()
        meta[key] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name = text()
        dims = [take("Q") for _ in range(take("I"))]
        infos.append((name, dims[::-1], take("I"), take("Q")))
    start = -(-at // 32) * 32
    tensors = {}
    for name, shape, kind, offset in infos:
        count, begin = int(np.prod(shape)), start + offset
        if kind == 36:
            codes = np.frombuffer(blob, np.uint8, count // 4, begin).reshape(-1, 1, 32)
            codes = (codes >> np.array([6, 4, 2, 0], np.uint8).reshape(1, 4, 1)) & 3
            assert codes.max() < 3
            scale = F(struct.unpack_from("<f", blob, begin + count // 4)[0])
            tensors[name] = codes.astype(F).reshape(shape) - F(1), scale
        else:
            dtype = {0: "<f4", 1: "<f2"}[kind]
            tensors[name] = np.frombuffer(blob, dtype, count, begin).reshape(shape).astype(F)
    return meta, tensors


class Model:
    """The forward pass of `bitnet-b1.58` with a key-value cache."""

    def __init__(self, path):
        self.meta, tensors = read_gguf(path)
        key = lambda name: self.meta["bitnet-b1.58." + name]
        self.t = {name.removesuffix(".weight"): value for name, value in tensors.items()}
        self.layers, self.heads, self.kv = key("block_count"), key("attention.head_count"), key("attention.head_count_kv")
        self.eps, self.dim, self.base = F(key("attention.layer_norm_rms_epsilon")), key("rope.dimension_count"), key("rope.freq_base")
        self.stop = {i for i, token in enumerate(self.meta["tokenizer.ggml.tokens"]) if token in ("<|endoftext|>", "<|end|>")}
        tokens = {token: i for i, token in enumerate(self.meta["tokenizer.ggml.tokens"])}
        self.tokenizer = tokenizer.build(tokens, [tuple(m.split(" ")) for m in self.meta["tokenizer.ggml.merges"]])
        self.bos = self.meta["tokenizer.ggml.bos_token_id"]
        self.reset()

    def reset(self):
        self.cache = [None] * self.layers
        self.position = 0

    def encode(self, text):
        ids = self.tokenizer.encode(text).ids
        return ids if ids[:1] == [self.bos] else [self.bos] + ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True, dtype=F) + self.eps) * self.t[name]

    def linear(self, x, name):
        trits, scale = self.t[name]
        s = F(127) / np.maximum(np.abs(x).max(-1, keepdims=True), F(1e-5))
        q = np.clip(np.rint(x * s), F(-128), F(127))
        return q @ trits.T / s * scale

    def rope(self, x):
        half = self.dim // 2
        angle = (self.position + np.arange(x.shape[0]))[:, None] * self.base ** (-np.arange(half) / half)
        cos, sin = np.cos(angle).astype(F)[:, None], np.sin(angle).astype(F)[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, ids):
        """Logits [len(ids), vocab] for the ids that follow what the cache holds."""
        x = self.t["token_embd"][ids]
        n = len(ids)
        for layer in range(self.layers):
            at = f"blk.{layer}."
            h = self.norm(x, at + "attn_norm")
            q = self.rope(self.linear(h, at + "attn_q").reshape(n, self.heads, -1))
            k = self.rope(self.linear(h, at + "attn_k").reshape(n, self.kv, -1))
            v = self.linear(h, at + "attn_v").reshape(n, self.kv, -1)
            if self.cache[layer] is not None:
                k, v = (np.concatenate(pair) for pair in zip(self.cache[layer], (k, v)))
            self.cache[layer] = k, v
            future = np.arange(len(k))[None] > self.position + np.arange(n)[:, None]
            out = []
            for head in range(self.heads):
                group = head // (self.heads // self.kv)
                s = q[:, head] @ k[:, group].T / np.sqrt(F(self.dim))
                e = np.exp(np.where(future, F(-np.inf), s - s.max(-1, keepdims=True)))
                out.append(e / e.sum(-1, keepdims=True) @ v[:, group])
            x = x + self.linear(self.norm(np.concatenate(out, -1), at + "attn_sub_norm"), at + "attn_output")
            h = self.norm(x, at + "ffn_norm")
            h = np.square(np.maximum(self.linear(h, at + "ffn_gate"), 0)) * self.linear(h, at + "ffn_up")
            x = x + self.linear(self.norm(h, at + "ffn_sub_norm"), at + "ffn_down")
        self.position += n
        return self.norm(x, "output_norm") @ self.t["token_embd"].T

    def generate(self, ids, count, temperature=0.0, rng=None):
        """Up to `count` ids; the last one is a stop token if the text ended by itself."""
        self.reset()
        logits, out = self.forward(ids)[-1], []
        while len(out) < count:
            out.append(int(logits.argmax()) if temperature == 0 else sample(logits, temperature, rng))
            if out[-1] in self.stop:
                break
            logits = self.forward([out[-1]])[-1]
        return out


def sample(logits, temperature, rng, top_k=40, top_p=0.95, min_p=0.05):
    """The usual chain: top-k, top-p, min-p, then temperature."""
    order = np.argsort(-logits)[:top_k]
    p = np.exp(logits[order] - logits[order[0]])
    keep = int(np.searchsorted(np.cumsum(p / p.sum()), top_p)) + 1
    order = [i for i in order[:keep] if logits[i] >= logits[order[0]] + np.log(min_p)]
    p = np.exp((logits[order] - logits[order[0]]) / temperature).astype(np.float64)
    return int(rng.choice(order, p=p / p.sum()))


def perplexity(logits_of, ids, bos, context=512):
    """(perplexity, scored tokens): disjoint chunks, BOS in place of each first token, second half scored."""
    first, total, count = context // 2, 0.0, 0
    for chunk in range(len(ids) // context):
        part = list(ids[chunk * context : (chunk + 1) * context])
        part[0] = bos
        logits = np.asarray(logits_of(part))[first : context - 1]
        top = logits.max(-1, keepdims=True)
        lse = np.log(np.exp(logits - top).sum(-1, dtype=np.float64)) + top[:, 0]
        nll = lse - logits[np.arange(len(logits)), part[first + 1 :]]
        total, count = total + nll.sum(), count + len(nll)
    return float(np.exp(total / count)), count


def model_perplexity(model, text):
    def logits_of(ids):
        model.reset()
        return model.forward(ids)

    return perplexity(logits_of, model.encode(text), model.bos)


def chat_prompt(question):
    return f"<|endoftext|><|user|>{question}<|end|><|assistant|>"


def answer_questions(model, rows):
    """{type: (right, asked)} and the wrong answers; greedy."""
    score, wrong = {}, []
    for row in rows:
        ids = model.generate(model.encode(chat_prompt(row["question"])), 40)
        answer = model.decode([i for i in ids if i not in model.stop])
        right = row["key"] in answer if len(row["key"]) > 3 else row["key"] in answer.rstrip(".").split()
        good, asked = score.get(row["type"], (0, 0))
        score[row["type"]] = good + right, asked + 1
        if not right:
            wrong.append((row["type"], row["question"], row["answer"], answer))
    return score, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "demo.gguf")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--questions", action="store_true")
    parser.add_argument("--perplexity", action="store_true")
    args = parser.parse_args()
    model = Model(args.model)
    ids = model.generate(model.encode(args.prompt), 120)
    print(args.prompt + model.decode(ids), f"\n[{len(ids)} tokens]", ids[:64])
    if args.perplexity:
        print("perplexity", *model_perplexity(model, (HERE / "heldout.txt").read_text()))
    if args.questions:
        rows = [json.loads(line) for line in (HERE / "qa_heldout.jsonl").read_text().splitlines()]
        score, wrong = answer_questions(model, rows)
        for row in wrong:
            print(*row, sep=" | ")
        for kind, (good, asked) in score.items():
            print(f"{kind}: {good} of {asked}")
        print("all:", sum(g for g, _ in score.values()), "of", sum(a for _, a in score.values()))


if __name__ == "__main__":
    main()
