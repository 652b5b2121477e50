"""Writes a checkpoint as GGUF (I2_S trits, F16 embedding, F32 norms, tokenizer and chat template)
and, beside it, the held-out text and questions with the numbers that tests compare against.

The ternary numbers come from `reference.py` on the file just written, not from the trainer.
"""

import argparse
import json
import os
import random
import re
import struct
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np

import corpus
import model
import reference
import stories
import tokenizer
import train

HERE = Path(__file__).parent
ARCH = "bitnet-b1.58"
ALIGNMENT = 32
F32, F16, I2_S = 0, 1, 36
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HELD_OUT_SEED = 1_000_003
STORIES, QUESTIONS_PER_KIND, PROMPTS = 230, 20, 24


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def entry(key, kind, value):
    body = {
        "u32": lambda: struct.pack("<II", 4, value),
        "f32": lambda: struct.pack("<If", 6, value),
        "bool": lambda: struct.pack("<IB", 7, value),
        "str": lambda: struct.pack("<I", 8) + text(value),
        "str[]": lambda: struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value)),
        "i32[]": lambda: struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value),
    }[kind]()
    return text(key) + body


def pack_i2s(trits, scale):
    """Blocks of 128 codes in 32 bytes: byte p holds codes p, p+32, p+64, p+96, the first one on top."""
    c = (np.asarray(trits).astype(np.int8) + 1).astype(np.uint8).reshape(-1, 4, 32)
    packed = c[:, 0] << 6 | c[:, 1] << 4 | c[:, 2] << 2 | c[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


def metadata(shape, tok):
    vocab = tok.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    assert [vocab[t] for t in tokens] == list(range(shape.vocab))
    merges = json.loads(tok.to_str())["model"]["merges"]
    special = [tokenizer.is_special(t) for t in tokens]
    return [
        ("general.architecture", "str", ARCH),
        ("general.name", "str", "bitnet-tune demo"),
        ("general.description", "str", "A very small ternary model for short stories and simple questions, trained on generated text"),
        ("general.license", "str", "MIT OR Apache-2.0"),
        ("general.file_type", "u32", 40),
        ("general.quantization_version", "u32", 2),
        (ARCH + ".vocab_size", "u32", shape.vocab),
        (ARCH + ".context_length", "u32", shape.context),
        (ARCH + ".embedding_length", "u32", shape.hidden),
        (ARCH + ".block_count", "u32", shape.layers),
        (ARCH + ".feed_forward_length", "u32", shape.ffn),
        (ARCH + ".attention.head_count", "u32", shape.heads),
        (ARCH + ".attention.head_count_kv", "u32", shape.kv_heads),
        (ARCH + ".attention.layer_norm_rms_epsilon", "f32", shape.eps),
        (ARCH + ".rope.dimension_count", "u32", shape.head_dim),
        (ARCH + ".rope.freq_base", "f32", shape.rope_base),
        ("tokenizer.ggml.model", "str", "gpt2"),
        ("tokenizer.ggml.pre", "str", "llama-bpe"),
        ("tokenizer.ggml.tokens", "str[]", tokens),
        ("tokenizer.ggml.token_type", "i32[]", [3 if s else 1 for s in special]),
        ("tokenizer.ggml.merges", "str[]", [" ".join(pair) for pair in merges]),
        ("tokenizer.ggml.bos_token_id", "u32", vocab[corpus.END_OF_TEXT]),
        ("tokenizer.ggml.eos_token_id", "u32", vocab[corpus.END_OF_TEXT]),
        ("tokenizer.ggml.eot_token_id", "u32", vocab[corpus.END]),
        ("tokenizer.ggml.add_bos_token", "bool", True),
        ("tokenizer.chat_template", "str", CHAT_TEMPLATE),
    ]


def write_gguf(path, params, shape, tok):
    tensors = []
    for name, value in params.items():
        if name.split(".")[-1] in model.LINEARS:
            trits, scale = model.ternarise(value)
            tensors.append((name, value.shape, I2_S, pack_i2s(trits, float(scale))))
        elif value.ndim == 2:
            tensors.append((name, value.shape, F16, np.asarray(value).astype("<f2").tobytes()))
        else:
            tensors.append((name, value.shape, F32, np.asarray(value).astype("<f4").tobytes()))
    infos, data = b"", b""
    for name, dims, kind, raw in tensors:
        infos += text(name + ".weight") + struct.pack(f"<I{len(dims)}Q", len(dims), *reversed(dims)) + struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % ALIGNMENT)
    keys = metadata(shape, tok)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(entry(*k) for k in keys) + infos
    path.write_bytes(head + bytes(-len(head) % ALIGNMENT) + data)


def trainer_perplexity(params, shape, kind, ids, bos):
    logits = jax.jit(lambda ids: model.logits(params, ids, shape, kind))
    return reference.perplexity(lambda part: logits(jnp.asarray([part]))[0], ids, bos)[0]


def held_out_prompts():
    """Openings of held-out stories, cut after 16 words."""
    return [" ".join(s.split()[:16]) for s in corpus.held_out_stories(HELD_OUT_SEED + 1, PROMPTS)]


def write_held_out(out):
    """The files that do not depend on the weights."""
    (out / "heldout.txt").write_text(corpus.END_OF_TEXT.join(corpus.held_out_stories(HELD_OUT_SEED, STORIES)))
    rows = corpus.held_out_questions(HELD_OUT_SEED + 2, QUESTIONS_PER_KIND)
    (out / "qa_heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    r = random.Random(train.SEED)
    seen = corpus.training_documents(train.SEED, 20000) + [corpus.lesson(r) for _ in range(4000)]
    words = {w for text in seen for w in words_of(text)}
    (out / "vocabulary.txt").write_text("".join(w + "\n" for w in sorted(words)))


def words_of(document):
    """Lower-case words: runs of letters."""
    return re.findall(r"[a-z]+", re.sub(r"<\|[a-z]+\|>", " ", document).lower())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ternary", type=Path, help="checkpoint of the ternary model")
    parser.add_argument("twin", type=Path, nargs="?", help="checkpoint of its float twin")
    parser.add_argument("--run", type=Path, default=Path("run"), help="where the trainer left tokenizer.json")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    shape = model.Shape()
    tok = tokenizer.load(args.run / "tokenizer.json")
    step, (params, _, _) = train.load(args.ternary)
    path = args.out / "demo.gguf"
    write_gguf(path, params, shape, tok)
    write_held_out(args.out)

    ref = reference.Model(path)
    heldout = (args.out / "heldout.txt").read_text()
    ids = ref.encode(heldout)
    assert ids == [0] + tok.encode(heldout).ids
    ternary, scored = reference.model_perplexity(ref, heldout)
    stored = {n: p.astype(jnp.float16).astype(jnp.float32) if n == "token_embd" else p for n, p in params.items()}
    prompt = "Once upon a time"
    ref.reset()
    first = ref.forward(ref.encode(prompt))[-1]
    golden = ref.generate(ref.encode(prompt), 64)
    result = {
        "steps": step,
        "context": shape.context,
        "tokens": len(ids),
        "chunks": len(ids) // shape.context,
        "scored_tokens": scored,
        "ternary_perplexity": ternary,
        "ternary_perplexity_of_the_trainer": trainer_perplexity(stored, shape, "ternary", ids, ref.bos),
    }
    if args.twin:
        twin_step, (twin, _, _) = train.load(args.twin)
        assert twin_step == step
        result["twin_perplexity"] = trainer_perplexity(twin, shape, "float", ids, ref.bos)
    result |= {
        "golden": {
            "prompt": prompt,
            "prompt_tokens": ref.encode(prompt),
            "greedy_tokens": golden,
            "greedy_text": ref.decode([i for i in golden if i not in ref.stop]),
            "last_prompt_logits": [round(float(x), 5) for x in first],
        },
        "prompts": held_out_prompts(),
        "names": sorted(stories.LEADS | stories.FRIENDS),
    }
    (args.out / "heldout.json").write_text(json.dumps(result, indent=1).replace(",\n   ", ", ") + "\n")
    print({k: v for k, v in result.items() if k not in ("golden", "prompts")}, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
