"""Prints the parts of the model card that are measured: curves and answers by type.

Everything is computed by `reference.py` on `demo.gguf`, so that the card cannot be newer or older
than the file beside it.
"""

import json
import re
from pathlib import Path

import reference

HERE = Path(__file__).parent


def curves(log, every=200):
    loss = {}
    for kind, step, value in re.findall(r"^(\w+) step (\d+) .* loss ([\d.]+)", log, re.M):
        loss.setdefault(int(step), {})[kind] = value
    print("| step | tokens | ternary | twin |\n|---|---|---|---|")
    for step, both in sorted(loss.items()):
        if step % every == 0:
            print(f"| {step} | {step * 2048 / 1e6:.2f} M | {both.get('ternary', '')} | {both.get('float', '')} |")


def main():
    curves((HERE / "train.log").read_text())
    model = reference.Model(HERE / "demo.gguf")
    rows = [json.loads(line) for line in (HERE / "qa_heldout.jsonl").read_text().splitlines()]
    score, wrong = reference.answer_questions(model, rows)
    print("\n| question type | right |\n|---|---|")
    for kind, (right, asked) in score.items():
        print(f"| {kind} | {right} of {asked} |")
    print(f"| all | {sum(r for r, _ in score.values())} of {sum(a for _, a in score.values())} |")
    for row in wrong:
        print("wrong:", *row[1:], sep=" | ")


if __name__ == "__main__":
    main()
