"""Random tiny Qwen3 models whose every matrix is ternary with a scale for each group of columns, in each way that files
store them, with the logits that transformers gives for the same weights in float32.

    pip install -r requirements.txt && python qwen3.py [NAME]

writes `qwen3/NAME/`: the model as GGUF (this file's own writer) or as a Hugging Face folder of floats, and
`expected.json` as in `generate.py`. Packing follows the published block layouts and shares nothing with the readers.
"""

import json
import math
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent / "qwen3"
TOKENS = [1, 40, 7, 133, 2, 2, 19, 45, 111, 28, 3, 36, 22, 9, 147, 0, 88, 61, 5, 150, 12, 99, 74]


def settings(tied, yarn, layers, hidden, ffn):
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if yarn:
        rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}
    return Qwen3Config(
        hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        head_dim=64, vocab_size=151, max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=tied,
        rope_parameters=rope, bos_token_id=1, eos_token_id=2, attention_bias=False,
    )


def ternarise(model, group, seed):
    """Replaces every matrix by trits times f16 scales; returns name -> (trits, scales)."""
    random = np.random.default_rng(seed)
    parts = {}
    for name, p in model.named_parameters():
        if p.dim() == 1:
            # Values of float16, so that folders may be half as large.
            p.data = torch.tensor((1 + 0.2 * random.standard_normal(p.shape)).astype(np.float16).astype(np.float32))
            continue
        n, k = p.shape
        trits = random.integers(-1, 2, (n, k)).astype(np.int8)
        # Logits spread by a few units, as in a trained model.
        size = (1.0 if "embed" in name else 1.2 / math.sqrt(k)) * (0.4 if "lm_head" in name else 1)
        scales = (size * random.uniform(0.5, 1.5, (n, k // group))).astype(np.float16)
        p.data = torch.tensor(trits * np.repeat(scales.astype(np.float32), group, axis=1))
        parts[name] = (trits, scales)
    return parts


def q2_0(trits, scales, group):
    codes = (trits + 1).astype(np.uint8)
    out = bytearray()
    for row, of_row in zip(codes, scales):
        for g, scale in enumerate(of_row):
            block = row[g * group : (g + 1) * group].reshape(-1, 4)
            out += scale.tobytes() + (block @ np.array([1, 4, 16, 64], np.uint8)).astype(np.uint8).tobytes()
    return bytes(out)


def ptq1_0(trits, scales, group):
    assert group == 128
    codes = (trits + 1).astype(np.uint32)
    out = bytearray()
    for row, of_row in zip(codes, scales):
        for g, scale in enumerate(of_row):
            block = row[g * 128 : (g + 1) * 128]
            for width, first, digits in [(16, 0, 5), (8, 80, 5), (2, 120, 4)]:
                for m in range(width):
                    v = 0
                    for n in range(digits):
                        v = 3 * v + int(block[first + width * n + m])
                    v *= 3 ** (5 - digits)
                    out.append((256 * v + 242) // 243)
            out += scale.tobytes()
    return bytes(out)


# name: type id, columns of a group, packing
TYPES = {
    "q2-g64": (42, 64, q2_0),
    "q2-g128": (42, 128, q2_0),
    "pq2": (142, 128, q2_0),
    "ptq1": (143, 128, ptq1_0),
}

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[rest]}.weight"
    return f"{NAMES[stem]}.weight"


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write_gguf(path, config, model, parts, kind, yarn):
    type_id, group, pack = TYPES[kind]
    keys = []
    text = lambda k, v: keys.append(string(k) + struct.pack("<I", 8) + string(v))
    u32 = lambda k, v: keys.append(string(k) + struct.pack("<II", 4, v))
    f32 = lambda k, v: keys.append(string(k) + struct.pack("<If", 6, v))
    text("general.architecture", "qwen3")
    u32("qwen3.vocab_size", config.vocab_size)
    u32("qwen3.context_length", config.max_position_embeddings)
    u32("qwen3.embedding_length", config.hidden_size)
    u32("qwen3.block_count", config.num_hidden_layers)
    u32("qwen3.feed_forward_length", config.intermediate_size)
    u32("qwen3.attention.head_count", config.num_attention_heads)
    u32("qwen3.attention.head_count_kv", config.num_key_value_heads)
    u32("qwen3.attention.key_length", config.head_dim)
    u32("qwen3.attention.value_length", config.head_dim)
    f32("qwen3.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    f32("qwen3.rope.freq_base", 10000.0)
    if yarn:
        text("qwen3.rope.scaling.type", "yarn")
        f32("qwen3.rope.scaling.factor", 4.0)
        u32("qwen3.rope.scaling.original_context_length", 16)
    infos, data = b"", b""
    tensors = [(n, p) for n, p in model.named_parameters() if not (n.startswith("lm_head") and config.tie_word_embeddings)]
    for name, p in tensors:
        if name in parts:
            bytes_, dtype = pack(*parts[name], group), type_id
        else:
            bytes_, dtype = p.data.numpy().astype("<f4").tobytes(), 0
        dims = list(reversed(p.shape))
        infos += string(gguf_name(name)) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        infos += struct.pack("<IQ", dtype, len(data))
        data += bytes_ + bytes(-len(bytes_) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def expected(model):
    def logits(m):
        with torch.no_grad():
            return m.eval()(torch.tensor([TOKENS])).logits[0]

    single = logits(model.float())
    difference = (single.double() - logits(model.double())).abs().max().item()
    model.float()
    return single, {
        "tokens": TOKENS,
        "vocab": single.shape[1],
        "float32_minus_float64": difference,
        "logits": single.float().contiguous().numpy().astype("<f4").tobytes().hex(),
    }


def main():
    models = {
        "q2-g64": ("q2-g64", True, False),
        "q2-g128": ("q2-g128", False, False),
        "pq2": ("pq2", True, False),
        "pq2-yarn": ("pq2", False, True),
        "ptq1": ("ptq1", True, False),
        "floats": (None, True, False),
        "floats-yarn": (None, False, True),
    }
    for seed, (name, (kind, tied, yarn)) in enumerate(models.items()):
        if name not in (sys.argv[1:] or models):
            continue
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # Rows of several groups, so that they are seen in floats.
        sizes = (256, 256) if name == "floats" else (128, 384)
        config = settings(tied, yarn, 2 if kind else 1, *sizes)
        config._attn_implementation = "eager"
        model = Qwen3ForCausalLM(config)
        parts = ternarise(model, TYPES[kind][1] if kind else 128, seed)
        single, answer = expected(model)
        if kind:
            write_gguf(folder / "model.gguf", config, model, parts, kind, yarn)
        else:
            model.half().save_pretrained(folder)
            (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "expected.json").write_text(json.dumps(answer) + "\n")
        print(f"{name}: logits {single.min():.2f} to {single.max():.2f}, spread {single.std():.2f}")


if __name__ == "__main__":
    main()
