"""A random tiny MiniCPM (BitCPM4) whose projections are ternary with a scale for each group of 64 columns. transformers has
Granite, the same graph with the same constants under other names, which gives the logits.

    pip install -r requirements.txt && python minicpm.py

writes `minicpm/gguf/` (q and k in the order of pairs, as converters write them) and `minicpm/folder/`, each with
`expected.json` as in `qwen3.py`.
"""

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GraniteConfig, GraniteForCausalLM

from qwen3 import NAMES, expected, q2_0, string

HERE = Path(__file__).parent / "minicpm"
LAYERS, HIDDEN, HEADS, HEAD_DIM = 2, 128, 4, 32
SCALE_EMB, SCALE_DEPTH, DIM_MODEL_BASE = 12.0, 1.4, 64.0


def pairs(rows):
    """First halves, then second halves, to pair by pair, head by head."""
    n, k = rows.shape
    return rows.reshape(n // HEAD_DIM, 2, HEAD_DIM // 2, k).transpose(0, 2, 1, 3).reshape(n, k)


def main():
    config = GraniteConfig(
        hidden_size=HIDDEN, intermediate_size=384, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=2, vocab_size=151, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
        attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        embedding_multiplier=SCALE_EMB, residual_multiplier=SCALE_DEPTH / math.sqrt(LAYERS),
        logits_scaling=HIDDEN / DIM_MODEL_BASE, attention_multiplier=1 / math.sqrt(HEAD_DIM),
    )
    config._attn_implementation = "eager"
    model = GraniteForCausalLM(config)
    random = np.random.default_rng(7)
    parts = {}
    for name, p in model.named_parameters():
        if p.dim() == 1 or "embed" in name:
            size, center = (0.2, 1) if p.dim() == 1 else (0.1, 0)
            p.data = torch.tensor((center + size * random.standard_normal(p.shape)).astype(np.float16).astype(np.float32))
            continue
        n, k = p.shape
        trits = random.integers(-1, 2, (n, k)).astype(np.int8)
        scales = (1.2 / math.sqrt(k) * random.uniform(0.5, 1.5, (n, k // 64))).astype(np.float16)
        p.data = torch.tensor(trits * np.repeat(scales.astype(np.float32), 64, axis=1))
        parts[name] = (trits, scales)
    single, answer = expected(model)
    for kind in ["gguf", "folder"]:
        shutil.rmtree(HERE / kind, ignore_errors=True)
        (HERE / kind).mkdir(parents=True)
        (HERE / kind / "expected.json").write_text(json.dumps(answer) + "\n")
    folder(HERE / "folder", config, model)
    gguf(HERE / "gguf" / "model.gguf", config, model, parts)
    print(f"logits {single.min():.2f} to {single.max():.2f}, spread {single.std():.2f}")


def folder(path, config, model):
    tensors = {n: p.data.half().contiguous() for n, p in model.named_parameters() if not n.startswith("lm_head")}
    save_file(tensors, path / "model.safetensors")
    said = {
        "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "hidden_size": HIDDEN, "intermediate_size": 384,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 2, "vocab_size": 151,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
        "scale_emb": SCALE_EMB, "scale_depth": SCALE_DEPTH, "dim_model_base": DIM_MODEL_BASE,
        "rope_scaling": {
            "rope_type": "longrope", "short_factor": [1.0] * (HEAD_DIM // 2), "long_factor": [2.0] * (HEAD_DIM // 2),
            "original_max_position_embeddings": 64,
        },
    }
    (path / "config.json").write_text(json.dumps(said, indent=2) + "\n")


def gguf(path, config, model, parts):
    keys = []
    text = lambda k, v: keys.append(string(k) + struct.pack("<I", 8) + string(v))
    u32 = lambda k, v: keys.append(string("minicpm." + k) + struct.pack("<II", 4, v))
    f32 = lambda k, v: keys.append(string("minicpm." + k) + struct.pack("<If", 6, v))
    text("general.architecture", "minicpm")
    u32("vocab_size", 151)
    u32("context_length", 64)
    u32("embedding_length", HIDDEN)
    u32("block_count", LAYERS)
    u32("feed_forward_length", 384)
    u32("attention.head_count", HEADS)
    u32("attention.head_count_kv", 2)
    f32("attention.layer_norm_rms_epsilon", 1e-5)
    f32("rope.freq_base", 10000.0)
    f32("embedding_scale", SCALE_EMB)
    f32("residual_scale", SCALE_DEPTH / math.sqrt(LAYERS))
    f32("logit_scale", HIDDEN / DIM_MODEL_BASE)
    tensors = []
    for name, p in model.named_parameters():
        if name.startswith("lm_head"):
            continue
        stem = name.removesuffix(".weight")
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        if name in parts:
            both = parts[name]
            if stem.endswith(("q_proj", "k_proj")):
                both = [pairs(a) for a in both]
            bytes_, dtype = q2_0(*both, 64), 42
        else:
            bytes_, dtype = p.data.numpy().astype("<f4").tobytes(), 0
        tensors.append((f"{prefix}{NAMES[stem]}.weight", p.shape, dtype, bytes_))
    infos, data = b"", b""
    for name, shape, dtype, bytes_ in tensors:
        infos += string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in reversed(shape))
        infos += struct.pack("<IQ", dtype, len(data))
        data += bytes_ + bytes(-len(bytes_) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)


if __name__ == "__main__":
    main()
