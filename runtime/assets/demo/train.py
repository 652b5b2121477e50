"""Trains the demo model, or its float twin, from a seed on one CPU thread.

A constant rate with weight decay, then, as BitNet b1.58 models are trained, a longer part whose
rate falls to zero without weight decay. Rows start short, because a name is found sooner among 128
tokens than among 512, and end at the full context.
Both models see the same tokens in the same order. A run can be stopped and resumed from any
checkpoint and gives the same weights as if it had not been stopped.
"""

import argparse
import os
import random
import re
import time
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np

import corpus
import model
import tokenizer

SEED = 20
TOKENS_PER_STEP = 2048
# (up to this step, row length, kind of document mixed in, its share, fraction of the rate at its end)
STAGES = (
    (600, 128, "lesson", 0.4, 1.0),
    (1300, 256, "scene", 0.2, 1.0),
    (3000, 256, "practice", 0.25, 1 / 2),
    (3700, 512, "rehearsal", 0.5, 1 / 4),
    (4400, 512, "drill", 0.5, 0.0),
)
WARM_UP = 60
RATE = {"ternary": 4e-3, "float": 2.5e-3}
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)


def rows(tok, seed, length, count, extra, share):
    """`count` rows of length + 1 ids. A row starts with a document and ends where it is full; the
    rest of the last document is dropped."""
    r = random.Random(seed)
    extra = getattr(corpus, extra)
    document = lambda r: extra(r) if share and r.random() < share else corpus.training_document(r)
    out = np.zeros((count, length + 1), np.uint16)
    row, at = 0, 0
    while row < count:
        for code in tok.encode_batch([corpus.END_OF_TEXT + document(r) for _ in range(2000)]):
            ids = code.ids[: length + 1 - at]
            out[row, at : at + len(ids)] = ids
            at += len(ids)
            if at == length + 1:
                row, at = row + 1, 0
                if row == count:
                    break
    return out


def rate(step, args):
    start, before = 0, 1.0
    for end, *_, after in args.stages:
        if step < end:
            break
        start, before = end, after
    return args.rate * min(1.0, (step + 1) / WARM_UP) * (before + (after - before) * (step - start) / (end - start))


def parse_stages(text):
    parts = [part.split(":") for part in text.split(",")]
    return tuple((int(end), int(length), extra, float(share), float(Fraction(after))) for end, length, extra, share, after in parts)


def make_step(shape, kind):
    def step(params, m, v, ids, t, lr, decay):
        value, grad = jax.value_and_grad(model.loss)(params, ids, shape, kind)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in grad.values()))
        clip = jnp.minimum(1.0, 1.0 / (norm + 1e-9))
        b1, b2 = BETAS
        new = {}, {}, {}
        for name, p in params.items():
            g = grad[name] * clip
            m1 = b1 * m[name] + (1 - b1) * g
            v1 = b2 * v[name] + (1 - b2) * g * g
            update = m1 / (1 - b1**t) / (jnp.sqrt(v1 / (1 - b2**t)) + 1e-8)
            shrink = decay if name.split(".")[-1] in model.LINEARS else 0.0
            new[0][name], new[1][name], new[2][name] = p - lr * (update + shrink * p), m1, v1
        return *new, value

    return jax.jit(step, donate_argnums=(0, 1, 2))


def save(path, step, state):
    part = path.with_suffix(".part.npz")
    np.savez(part, step=step, **{f"{kind}/{name}": np.asarray(value) for kind, tree in zip("pmv", state) for name, value in tree.items()})
    part.rename(path)


def load(path):
    """(step, (params, m, v)) of a checkpoint."""
    with np.load(path) as z:
        state = tuple({k[2:]: jnp.asarray(z[k]) for k in z.files if k.startswith(kind + "/")} for kind in "pmv")
        return int(z["step"]), state


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=RATE)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--stages", type=parse_stages, default=STAGES, help="as 400:64:scene:0.3:1,900:256:scene:0:1,...")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--stop-at", type=int, help="stop after this step, as if interrupted")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    args = parser.parse_args()
    args.rate = args.rate or RATE[args.kind]
    args.out.mkdir(parents=True, exist_ok=True)

    tok_path = args.out / "tokenizer.json"
    if not tok_path.exists():
        part = tok_path.with_suffix(f".{os.getpid()}")
        tokenizer.train(corpus.training_documents(SEED, 20000)).save(str(part))
        part.rename(tok_path)
    tok = tokenizer.load(tok_path)

    shape = model.Shape()
    first, state = 0, None
    if args.resume:
        first, state = load(args.resume)
    else:
        params = model.init(shape, SEED)
        zeros = lambda: {name: jnp.zeros_like(p) for name, p in params.items()}
        state = params, zeros(), zeros()
    starts = [0] + [stage[0] for stage in args.stages[:-1]]
    data = [
        rows(tok, SEED + 1 + i, length, (end - start) * TOKENS_PER_STEP // length, extra, share) if end > first else None
        for i, (start, (end, length, extra, share, _)) in enumerate(zip(starts, args.stages))
    ]
    step_fn = make_step(shape, args.kind)

    log = open(args.out / f"{args.kind}.log", "a", buffering=1)
    losses, began = [], time.time()
    last = args.stages[-1][0]
    for step in range(first, last):
        stage = sum(step >= stage[0] for stage in args.stages)
        per_step = TOKENS_PER_STEP // args.stages[stage][1]
        at = (step - starts[stage]) * per_step
        ids = jnp.asarray(data[stage][at : at + per_step].astype(np.int32))
        lr = rate(step, args)
        *state, value = step_fn(*state, ids, jnp.float32(step + 1), jnp.float32(lr), jnp.float32(WEIGHT_DECAY if args.stages[stage][-1] == 1.0 else 0.0))
        losses.append(float(value))
        done = step + 1
        if done % 20 == 0 or done == last:
            line = f"{args.kind} step {done} tokens {done * TOKENS_PER_STEP} length {args.stages[stage][1]} rate {lr:.6f} loss {np.mean(losses):.4f} seconds {time.time() - began:.0f}"
            print(line, flush=True)
            log.write(line + "\n")
            losses = []
        if done % args.checkpoint_every == 0 or done == last:
            save(args.out / f"{args.kind}-{done}.npz", done, state)
            kept = sorted(args.out.glob(f"{args.kind}-*.npz"), key=lambda p: int(re.search(r"-(\d+)\.npz", p.name)[1]) if re.search(r"-(\d+)\.npz", p.name) else 0)
            for old in kept[:-8]:
                old.unlink()
        if done == args.stop_at:
            break


if __name__ == "__main__":
    main()
