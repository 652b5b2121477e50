"""Random tiny embedding models, every projection ternary with an input norm of its own as in bitnet-embedding 0.6B (Qwen3)
and 270M (Gemma3), with the vectors that transformers gives for the same weights in float32.

    pip install -r requirements.txt && python embed.py

writes `embed/NAME/model.gguf` (this file's own writer, I2_S and float16 as the published files have) and `expected.json`:
token ids of texts, the last normed hidden state of each at length 1, and the largest difference to float64.
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
import torch
from transformers import Gemma3TextConfig, Gemma3TextModel, Qwen3Config, Qwen3Model

HERE = Path(__file__).parent / "embed"
TEXTS = [
    [1, 40, 7, 133, 2, 2, 19, 45, 111, 28, 3, 36, 22, 9, 147, 0, 88, 61, 5, 150, 12, 99, 74],
    [17],
    [5, 5, 5, 120, 64],
]
INPUT_EPS = 1e-6


class BitLinear(torch.nn.Module):
    """RMSNorm of its own, int8 a token, trits times one scale."""

    def __init__(self, linear, random):
        super().__init__()
        n, k = linear.weight.shape
        self.trits = random.integers(-1, 2, (n, k)).astype(np.int8)
        self.scale = np.float32(1.2 / math.sqrt(k))
        self.weight = torch.nn.Parameter(torch.tensor(self.trits.astype(np.float32)))
        self.norm = torch.nn.Parameter(torch.tensor(half(1 + 0.2 * random.standard_normal(k))))

    def forward(self, x):
        wide = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + INPUT_EPS) * self.norm
        scale = 127.0 / wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        codes = (wide * scale).round().clamp(-128, 127)
        return torch.nn.functional.linear(codes, self.weight) / scale * float(self.scale)


def half(values):
    return np.asarray(values).astype(np.float16).astype(np.float32)


def i2_s(trits, scale):
    """Blocks of 128: element e of a block is in byte e % 32, the first 32 in the highest two bits."""
    codes = (trits.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + struct.pack("<f", scale) + bytes(28)


NAMES = {
    "embed_tokens": "token_embd", "norm": "output_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
QWEN3 = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
GEMMA3 = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write_gguf(path, arch, config, model):
    keys = []
    text = lambda k, v: keys.append(string(k) + struct.pack("<I", 8) + string(v))
    u32 = lambda k, v: keys.append(string(f"{arch}.{k}") + struct.pack("<II", 4, v))
    f32 = lambda k, v: keys.append(string(f"{arch}.{k}") + struct.pack("<If", 6, v))
    text("general.architecture", arch)
    u32("vocab_size", config.vocab_size)
    u32("context_length", config.max_position_embeddings)
    u32("embedding_length", config.hidden_size)
    u32("block_count", config.num_hidden_layers)
    u32("feed_forward_length", config.intermediate_size)
    u32("attention.head_count", config.num_attention_heads)
    u32("attention.head_count_kv", config.num_key_value_heads)
    u32("attention.key_length", config.head_dim)
    u32("attention.value_length", config.head_dim)
    u32("pooling_type", 3)
    f32("attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    f32("rope.freq_base", 1e6)
    if arch == "gemma3":
        u32("attention.sliding_window", config.sliding_window)
    names = NAMES | (GEMMA3 if arch == "gemma3" else QWEN3)
    # Gemma norms multiply by 1 + weight, and files hold that sum; norms of projections are as they are.
    one = 1.0 if arch == "gemma3" else 0.0
    tensors = []
    for name, p in model.named_parameters():
        stem, last = name.rsplit(".", 1)
        prefix = ""
        if stem.startswith("layers."):
            _, layer, stem = stem.split(".", 2)
            prefix = f"blk.{layer}."
        values = p.data.numpy()
        if last == "norm":
            tensors.append((f"{prefix}{names[stem]}_norm_in.weight", p.shape, 1, values.astype("<f2").tobytes()))
        elif stem.endswith("_proj"):
            linear = model.get_submodule(name.removesuffix(".weight"))
            tensors.append((f"{prefix}{names[stem]}.weight", p.shape, 36, i2_s(linear.trits, linear.scale)))
        elif p.dim() == 1:
            tensors.append((f"{prefix}{names[stem]}.weight", p.shape, 1, (values + one).astype("<f2").tobytes()))
        else:
            tensors.append((f"{prefix}{names[stem]}.weight", p.shape, 1, values.astype("<f2").tobytes()))
    infos, data = b"", b""
    for name, shape, dtype, bytes_ in tensors:
        infos += string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in reversed(shape))
        infos += struct.pack("<IQ", dtype, len(data))
        data += bytes_ + bytes(-len(bytes_) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def settle(model, gemma, seed):
    """Ternary projections, and tables and norms of values that float16 holds."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        for module, children in [(layer.self_attn, "qkvo"), (layer.mlp, ["gate", "up", "down"])]:
            for child in children:
                setattr(module, f"{child}_proj", BitLinear(getattr(module, f"{child}_proj"), random))
    for name, p in model.named_parameters():
        if "_proj" in name:
            continue
        if p.dim() == 1:
            sums = half(1 + 0.2 * random.standard_normal(p.shape))
            p.data = torch.tensor(sums - 1 if gemma else sums)
        else:
            p.data = torch.tensor(half(random.standard_normal(p.shape)))


def vectors(model):
    rows = []
    for text in TEXTS:
        with torch.no_grad():
            state = model(torch.tensor([text])).last_hidden_state[0, -1].double()
        rows.append((state / state.norm()).numpy())
    return np.stack(rows)


def main():
    sizes = dict(
        hidden_size=128, intermediate_size=384, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=151,
        max_position_embeddings=64, rms_norm_eps=1e-6, attention_bias=False,
    )
    qwen3 = Qwen3Config(
        num_hidden_layers=2, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **sizes
    )
    # Six layers, so that one of them sees all positions and turns by the other angle.
    gemma3 = Gemma3TextConfig(
        num_hidden_layers=6, sliding_window=32, query_pre_attn_scalar=64,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        **sizes,
    )
    for seed, (arch, config, cls) in enumerate([("qwen3", qwen3, Qwen3Model), ("gemma3", gemma3, Gemma3TextModel)]):
        config._attn_implementation = "eager"
        model = cls(config).eval()
        settle(model, arch == "gemma3", seed)
        single = vectors(model.float())
        folder = HERE / arch
        folder.mkdir(parents=True, exist_ok=True)
        write_gguf(folder / "model.gguf", arch, config, model)
        double = vectors(model.double())
        answer = {
            "texts": TEXTS,
            "float32_minus_float64": float(np.abs(single - double).max()),
            "vectors": [[float(np.float32(v)) for v in row] for row in single],
        }
        (folder / "expected.json").write_text(json.dumps(answer) + "\n")
        print(f"{arch}: {answer['float32_minus_float64']:.1e} between float32 and float64, {(folder / 'model.gguf').stat().st_size} bytes")


if __name__ == "__main__":
    main()
