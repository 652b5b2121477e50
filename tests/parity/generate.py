"""Random tiny models in the forms that are easily read wrongly, with the logits that transformers gives for them.

    pip install -r requirements.txt && python generate.py

writes `fixtures/NAME/`: `config.json` and `model.safetensors`, as a user would have them, and `expected.json`: token
ids, the float32 logits of every position (bits as hexadecimal), and by how much the same model in float64 differs.
`runtime/src/format/tests/parity.rs` reads them without Python.
"""

import json
import os
import shutil
from pathlib import Path

# The quantised layers are compiled with a C++ compiler otherwise.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import pack_weights

HERE = Path(__file__).parent / "fixtures"
HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, VOCAB = 32, 64, 2, 4, 2, 48
TOKENS = [1, 40, 7, 33, 2, 2, 19, 45, 11, 28, 3, 36, 22, 9, 47, 0]


def config(kind, **more):
    base = {
        "architectures": ["BitNetForCausalLM" if kind == "bitnet" else "LlamaForCausalLM"],
        "model_type": kind,
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCAB,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "relu2" if kind == "bitnet" else "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return base | more


def quantised(**more):
    return {"quantization_config": {"quant_method": "bitnet"} | more}


def weights(kind, seed, projection, head=True):
    """All tensors; `projection(name, n, k, random)` makes the projections."""
    random = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=random)
    head_dim = HIDDEN // HEADS
    out = {"model.embed_tokens.weight": normal(VOCAB, HIDDEN), "model.norm.weight": 1 + 0.1 * normal(HIDDEN)}
    if head:
        out["lm_head.weight"] = 0.3 * normal(VOCAB, HIDDEN)
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        norms = {"input_layernorm": HIDDEN, "post_attention_layernorm": HIDDEN}
        if kind == "bitnet":
            norms |= {"self_attn.attn_sub_norm": HIDDEN, "mlp.ffn_sub_norm": FFN}
        for name, n in norms.items():
            out[f"{block}.{name}.weight"] = 1 + 0.1 * normal(n)
        kv = KV_HEADS * head_dim
        shapes = {
            "self_attn.q_proj": (HIDDEN, HIDDEN),
            "self_attn.k_proj": (kv, HIDDEN),
            "self_attn.v_proj": (kv, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_proj": (FFN, HIDDEN),
            "mlp.up_proj": (FFN, HIDDEN),
            "mlp.down_proj": (HIDDEN, FFN),
        }
        for name, (n, k) in shapes.items():
            out |= projection(f"{block}.{name}", n, k, random)
    return out


def masters(name, n, k, random):
    return {f"{name}.weight": torch.randn(n, k, generator=random) * 0.2}


def trits(n, k, random):
    return torch.randint(-1, 2, (n, k), generator=random).float()


def ternary(name, n, k, random):
    """Trits times one magnitude."""
    return {f"{name}.weight": trits(n, k, random) * 0.21}


def shards(name, n, k, random):
    """Trits times one magnitude a shard: of rows, or of columns where the input is what was split."""
    t = trits(n, k, random)
    by_column = name.endswith(("o_proj", "down_proj"))
    count = k if by_column else n
    scale = torch.tensor([0.19, 0.23]).repeat_interleave(count // 2)
    return {f"{name}.weight": t * (scale[None, :] if by_column else scale[:, None])}


def packed(name, n, k, random):
    """As a packed file has it; the stored scale divides. Down projections stay float."""
    if name.endswith("down_proj"):
        return masters(name, n, k, random)
    return {f"{name}.weight": pack_weights(trits(n, k, random)), f"{name}.weight_scale": torch.tensor([4.75])}


ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}
MODELS = {
    # Issue number and what is easily read wrongly.
    "1-not-converted": (
        config("bitnet", **quantised(**ONLINE, modules_to_not_convert=["lm_head", "model.layers.0", r"model\.layers\.\d+\.mlp\.up_proj"])),
        lambda: weights("bitnet", 1, masters),
    ),
    "1-head-converted": (config("llama", **quantised(**ONLINE, modules_to_not_convert=[])), lambda: weights("llama", 2, masters)),
    "1-tied-head-converted": (
        config("bitnet", tie_word_embeddings=True, **quantised(**ONLINE, modules_to_not_convert=["q_proj"])),
        lambda: weights("bitnet", 3, masters, head=False),
    ),
    "1-packed": (
        config("llama", **quantised(linear_class="bitlinear", quantization_mode="offline", modules_to_not_convert=["lm_head", "down_proj"])),
        lambda: weights("llama", 4, packed),
    ),
    "2-tied-but-different": (config("llama", tie_word_embeddings=True), lambda: weights("llama", 5, ternary)),
    "3-bitnet-floats": (config("bitnet"), lambda: weights("bitnet", 6, ternary)),
    "3-llama-floats": (config("llama"), lambda: weights("llama", 7, ternary)),
    "3-shards": (config("llama"), lambda: weights("llama", 8, shards)),
}


def logits(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    with torch.no_grad():
        return model.eval()(torch.tensor([TOKENS])).logits[0]


def main():
    for name, (settings, make) in MODELS.items():
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
        tensors = {k: v.contiguous() for k, v in make().items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        single, double = logits(folder, torch.float32), logits(folder, torch.float64)
        difference = (single.double() - double).abs().max().item()
        expected = {
            "tokens": TOKENS,
            "vocab": single.shape[1],
            "float32_minus_float64": difference,
            "logits": single.float().contiguous().numpy().astype("<f4").tobytes().hex(),
        }
        (folder / "expected.json").write_text(json.dumps(expected) + "\n")
        print(f"{name}: logits {single.min():.2f} to {single.max():.2f}, float32 differs from float64 by {difference:.2e}")


if __name__ == "__main__":
    main()
