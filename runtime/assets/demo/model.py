"""The demo model as a differentiable function: one forward pass, two kinds of linear layer.

`ternary` linears do what the runtime does, in the same order: absmean ternary weights per tensor,
absmax int8 activations per token, an exact integer dot product, one division and one
multiplication. Gradients pass straight through both roundings. `float` linears are plain f32
products; that model is the twin. Nothing here knows about data, optimisers or files.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Shape(NamedTuple):
    hidden: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    ffn: int = 768
    vocab: int = 2048
    context: int = 512
    rope_base: float = 10000.0
    eps: float = 1e-5


LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm")


def linear_shape(shape, name):
    """(outputs, inputs) of a linear layer, by its GGUF name."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "attn_q": (q, shape.hidden),
        "attn_k": (kv, shape.hidden),
        "attn_v": (kv, shape.hidden),
        "attn_output": (shape.hidden, q),
        "ffn_gate": (shape.ffn, shape.hidden),
        "ffn_up": (shape.ffn, shape.hidden),
        "ffn_down": (shape.hidden, shape.ffn),
    }[name]


def init(shape, seed):
    """Parameters by GGUF tensor name, drawn with numpy so that they do not depend on the JAX version.

    What a layer adds starts small beside the embedding, so that every layer sees which token it
    is looking at; with layers as loud as the embedding, names were not copied after 1000 steps.
    """
    rng = np.random.default_rng(seed)
    params = {"token_embd": rng.normal(0, 0.5, (shape.vocab, shape.hidden))}
    for layer in range(shape.layers):
        at = f"blk.{layer}."
        for name in LINEARS:
            n, k = linear_shape(shape, name)
            quiet = 0.2 if name in ("attn_output", "ffn_down") else 1.0
            params[at + name] = rng.normal(0, quiet * k**-0.5, (n, k))
        params[at + "attn_norm"] = np.ones(shape.hidden)
        params[at + "ffn_norm"] = np.ones(shape.hidden)
        params[at + "attn_sub_norm"] = np.ones(shape.heads * shape.head_dim)
        params[at + "ffn_sub_norm"] = np.ones(shape.ffn)
    params["output_norm"] = np.full(shape.hidden, 2 * shape.hidden**-0.5)  # logits of size one
    return {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}


def ternarise(w):
    """(codes in {-1, 0, 1} as f32, scale): absmean over the tensor, half to even."""
    scale = jnp.maximum(jnp.mean(jnp.abs(w)), 1e-5)
    return jnp.clip(jnp.round(w / scale), -1, 1), scale


def dot(spec, a, b):
    """Integers up to 127 and trits are exact in bf16 and the sums are exact in f32."""
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def weight_gradient(dy, x):
    """dyT x for bf16 operands; the transposed copy, kept apart from the dot, is faster than fusing it."""
    return dot("nm,mk->nk", jax.lax.optimization_barrier(dy.T), x)


def gradients(dy, x, w):
    """(dx, dw) of y = x wT for bf16 operands."""
    return dot("mn,nk->mk", dy, w), weight_gradient(dy, x)


@jax.custom_vjp
def bit_linear(x, w):
    return bit_linear_fwd(x, w)[0]


def bit_linear_fwd(x, w):
    trits, w_scale = ternarise(w)
    trits = trits.astype(jnp.bfloat16)
    s = 127.0 / jnp.maximum(jnp.max(jnp.abs(x), -1, keepdims=True), 1e-5)
    q = jnp.clip(jnp.round(x * s), -128, 127).astype(jnp.bfloat16)
    y = dot("mk,nk->mn", q, trits) / s * w_scale
    return y, (q, s, trits, w_scale)


def bit_linear_bwd(saved, dy):
    q, s, trits, w_scale = saved
    dx = dot("mn,nk->mk", dy.astype(jnp.bfloat16), trits) * w_scale
    return dx, weight_gradient((dy / s).astype(jnp.bfloat16), q)


bit_linear.defvjp(bit_linear_fwd, bit_linear_bwd)


@jax.custom_vjp
def float_linear(x, w):
    return jnp.einsum("mk,nk->mn", x, w)


def float_linear_bwd(saved, dy):
    x, w = (t.astype(jnp.bfloat16) for t in saved)
    return gradients(dy.astype(jnp.bfloat16), x, w)


float_linear.defvjp(lambda x, w: (float_linear(x, w), (x, w)), float_linear_bwd)


def column_sums(x):
    """Sum over rows as a product: much faster than XLA's own column reduction on a CPU."""
    return jnp.einsum("m,mk->k", jnp.ones(x.shape[0], jnp.float32), x)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x, weight, eps):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * weight


def rms_norm_fwd(x, weight, eps):
    inv = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return x * inv * weight, (x, inv, weight)


def rms_norm_bwd(eps, saved, dy):
    x, inv, weight = saved
    return rms_norm_dx(x, inv, dy * weight), column_sums(dy * x * inv)


def rms_norm_dx(x, inv, dn):
    """Gradient before the weight: dn is the gradient of x * inv."""
    return (dn - x * (jnp.mean(dn * x, -1, keepdims=True) * inv * inv)) * inv


rms_norm.defvjp(rms_norm_fwd, rms_norm_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def gated_norm(gate, up, weight, eps):
    """RMSNorm(relu(gate)^2 * up)."""
    return gated_norm_fwd(gate, up, weight, eps)[0]


def gated_norm_fwd(gate, up, weight, eps):
    h = jnp.square(jax.nn.relu(gate)) * up
    inv = jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + eps)
    return h * inv * weight, (gate, up, inv, weight)


def gated_norm_bwd(eps, saved, dy):
    gate, up, inv, weight = saved
    r = jax.nn.relu(gate)
    h = r * r * up
    dh = rms_norm_dx(h, inv, dy * weight)
    return 2 * dh * r * up, dh * r * r, column_sums(dy * h * inv)


gated_norm.defvjp(gated_norm_fwd, gated_norm_bwd)


@jax.custom_vjp
def cross_entropy(x, embd, target):
    """Mean nats of `target` under the tied head; logits in f32, gradients in bf16."""
    return cross_entropy_fwd(x, embd, target)[0]


def cross_entropy_fwd(x, embd, target):
    logits = jnp.einsum("mh,vh->mv", x, embd)
    top = jnp.max(logits, -1, keepdims=True)
    e = jnp.exp(logits - top)
    total = jnp.sum(e, -1, keepdims=True)
    picked = jnp.take_along_axis(logits, target[:, None], -1)
    return jnp.mean(jnp.log(total) + top - picked), (x, embd, target, logits, top + jnp.log(total))


def cross_entropy_bwd(saved, g):
    x, embd, target, logits, lse = saved
    hit = target[:, None] == jnp.arange(logits.shape[1])
    d = ((jnp.exp(logits - lse) - hit) * (g / x.shape[0])).astype(jnp.bfloat16)
    return *gradients(d, x.astype(jnp.bfloat16), embd.astype(jnp.bfloat16)), None


cross_entropy.defvjp(cross_entropy_fwd, cross_entropy_bwd)


def rope_tables(shape, length):
    i = np.arange(shape.head_dim // 2, dtype=np.float64)
    angle = np.arange(length)[:, None] * shape.rope_base ** (-2 * i / shape.head_dim)
    return jnp.asarray(np.cos(angle), jnp.float32), jnp.asarray(np.sin(angle), jnp.float32)


def rotate(x, cos, sin):
    """NEOX pairs (i, i + head_dim/2); x: [batch, heads, length, head_dim]."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


BLOCK = 128


def blocks(length):
    """(query range, key range) pairs that cover the causal triangle."""
    return [(slice(i, min(i + BLOCK, length)), slice(0, min(i + BLOCK, length))) for i in range(0, length, BLOCK)]


def scores(q, k, rows, cols):
    """q: [kv, group, length, d], already scaled. Masked scores [kv, group * rows, cols]."""
    g, d = q.shape[1], q.shape[3]
    s = jnp.einsum("bqd,bkd->bqk", q[:, :, rows].reshape(q.shape[0], -1, d), k[:, cols])
    causal = np.tile(np.arange(rows.start, rows.stop)[:, None] >= np.arange(cols.stop)[None], (g, 1))
    return jnp.where(causal, s, -1e30)


@jax.custom_vjp
def attend(q, k, v):
    """Causal softmax attention; q: [batch, kv, group, length, d], k and v: [batch, kv, length, d].

    One sequence at a time and in blocks of queries, so that the scores stay in the cache; the
    backward pass computes them again.
    """
    return attend_fwd(q, k, v)[0]


def attend_fwd(q, k, v):
    def one(qkv):
        q, k, v = qkv
        outs, lses = [], []
        for rows, cols in blocks(q.shape[2]):
            s = scores(q, k, rows, cols)
            top = jnp.max(s, -1, keepdims=True)
            e = jnp.exp(s - top)
            total = jnp.sum(e, -1, keepdims=True)
            shape = (q.shape[0], q.shape[1], -1)
            o = jnp.einsum("bqk,bkd->bqd", e, v[:, cols]) / total
            outs.append(o.reshape(*shape, q.shape[3]))
            lses.append((top + jnp.log(total)).reshape(*shape))
        return jnp.concatenate(outs, 2), jnp.concatenate(lses, 2)

    out, lse = jax.lax.map(one, (q, k, v))
    return out, (q, k, v, out, lse)


def attend_bwd(saved, dout):
    def one(args):
        q, k, v, out, lse, dout = args
        kv, _, length, d = q.shape
        flat = lambda t, rows: t[:, :, rows].reshape(kv, -1, *t.shape[3:])
        dq, dk, dv = [], jnp.zeros_like(k), jnp.zeros_like(v)
        for rows, cols in blocks(length):
            p = jnp.exp(scores(q, k, rows, cols) - flat(lse, rows)[..., None])
            do = flat(dout, rows)
            delta = jnp.sum(do * flat(out, rows), -1, keepdims=True)
            ds = p * (jnp.einsum("bqd,bkd->bqk", do, v[:, cols]) - delta)
            dv = dv.at[:, cols].add(jnp.einsum("bqk,bqd->bkd", p, do))
            dk = dk.at[:, cols].add(jnp.einsum("bqk,bqd->bkd", ds, flat(q, rows)))
            dq.append(jnp.einsum("bqk,bkd->bqd", ds, k[:, cols]).reshape(kv, q.shape[1], -1, d))
        return jnp.concatenate(dq, 2), dk, dv

    return jax.lax.map(one, (*saved, dout))


attend.defvjp(attend_fwd, attend_bwd)


def attention(shape, q, k, v, batch, length):
    cos, sin = rope_tables(shape, length)
    heads = lambda t, n: t.reshape(batch, length, n, shape.head_dim).transpose(0, 2, 1, 3)
    q = rotate(heads(q, shape.heads), cos, sin) * shape.head_dim**-0.5
    k = rotate(heads(k, shape.kv_heads), cos, sin)
    q = q.reshape(batch, shape.kv_heads, -1, length, shape.head_dim)
    out = attend(q, k, heads(v, shape.kv_heads)).reshape(batch, shape.heads, length, shape.head_dim)
    return out.transpose(0, 2, 1, 3).reshape(batch * length, shape.heads * shape.head_dim)


def hidden_states(params, ids, shape, kind):
    """Normed final states [batch * length, hidden]; kind is `ternary` or `float`."""
    linear = bit_linear if kind == "ternary" else float_linear
    batch, length = ids.shape
    x = params["token_embd"][ids.reshape(-1)]
    for layer in range(shape.layers):
        p = {name: params[f"blk.{layer}.{name}"] for name in LINEARS + NORMS}
        n = rms_norm(x, p["attn_norm"], shape.eps)
        o = attention(shape, *(linear(n, p[name]) for name in LINEARS[:3]), batch, length)
        x = x + linear(rms_norm(o, p["attn_sub_norm"], shape.eps), p["attn_output"])
        n = rms_norm(x, p["ffn_norm"], shape.eps)
        h = gated_norm(linear(n, p["ffn_gate"]), linear(n, p["ffn_up"]), p["ffn_sub_norm"], shape.eps)
        x = x + linear(h, p["ffn_down"])
    return rms_norm(x, params["output_norm"], shape.eps)


def logits(params, ids, shape, kind):
    """[batch, length, vocab]."""
    x = hidden_states(params, ids, shape, kind)
    return jnp.einsum("mh,vh->mv", x, params["token_embd"]).reshape(*ids.shape, shape.vocab)


def loss(params, ids, shape, kind):
    """Mean cross entropy in nats of ids[:, 1:] given what precedes them."""
    x = hidden_states(params, ids[:, :-1], shape, kind)
    return cross_entropy(x, params["token_embd"], ids[:, 1:].reshape(-1))
