"""The rivals in C against their definitions in plain Python, on a synthetic text and model.
usage: check_rivals.py REPLAY FOLDER"""
import math
import os
import subprocess
import sys

import rows
from kneser_ney_reference import KneserNey

TOKENS = 1200
SETTINGS = [("kneser_ney:order=2,discount=0.6,weight=0.3", 2, 0.6, 0.3),
            ("kneser_ney:order=3,modified=1,weight=0.2", 3, None, 0.2),
            ("kneser_ney:order=5,discount=0.8,weight=1", 5, 0.8, 1.0),
            ("kneser_ney:order=5,modified=1,weight=0.5", 5, None, 0.5)]
ALPHAS = [0.2, 1.0]


def kneser_ney(order, discount, weight, tokens, model_nats, vocabulary):
    model = KneserNey(vocabulary, order, discount)
    for t, token in enumerate(tokens[1:]):
        mixed = (1 - weight) * math.exp(-model_nats[t]) + weight * model.probability(token)
        if t in (50, 700):  # a distribution, whatever came before
            total = math.fsum(model.probability(v) for v in range(vocabulary))
            if abs(total - 1) > 1e-9:
                sys.exit(f"the reference of order {order} sums to {total!r} at position {t}")
        yield -math.log(mixed)
        model.update(token)


def additive(alpha, dump):
    """Order 4: logits plus alpha times the log-ratio of (c + 1/2) / (n + V/2) to 1 / V, for every token."""
    counts, past, V = {}, [], dump.vocabulary
    for token, row in zip(dump.tokens[1:], dump):
        followers = counts.get(tuple(past[-3:]), {}) if len(past) >= 3 else {}
        n = sum(followers.values())
        raised = [p * ((followers.get(v, 0) + 0.5) / (n + 0.5 * V) * V) ** alpha
                  for v, p in enumerate(row)]
        yield -math.log(raised[token] / math.fsum(raised))
        if len(past) >= 3:
            of_context = counts.setdefault(tuple(past[-3:]), {})
            of_context[token] = of_context.get(token, 0) + 1
        past.append(token)


def compare(name, found, expected, tolerance):
    worst = max(range(len(found)), key=lambda t: abs(found[t] - expected[t]))
    difference = abs(found[worst] - expected[worst])
    print(f"{name}: differs by at most {difference:.2e} nats, at position {worst}")
    if not difference <= tolerance:
        sys.exit(f"{name}: {found[worst]!r} nats instead of {expected[worst]!r}")


def check(replay, folder, vocabulary):
    path, out = os.path.join(folder, "check.rows"), os.path.join(folder, "scores.bin")
    text = rows.synthetic_text(vocabulary, TOKENS + 1, vocabulary)
    rows.write(path, vocabulary, text, rows.synthetic_rows(vocabulary, text, 7))
    contenders = [name for name, *_ in SETTINGS] + [f"additive:alpha={a}" for a in ALPHAS]
    subprocess.run([replay, path, "--scores", out] + contenders, check=True,
                   stdout=subprocess.DEVNULL)
    model, *found = rows.scores(out, TOKENS)
    expected = [-math.log(row[token]) for row, token in zip(rows.Rows(path), text[1:])]
    compare(f"V = {vocabulary}, the model", model, expected, 1e-9)
    for (name, order, discount, weight), nats in zip(SETTINGS, found):
        wanted = list(kneser_ney(order, discount, weight, text, model, vocabulary))
        compare(f"V = {vocabulary}, {name}", nats, wanted, 1e-6)  # its probabilities are float32
    for alpha, nats in zip(ALPHAS, found[len(SETTINGS):]):
        compare(f"V = {vocabulary}, additive:alpha={alpha}", nats,
                list(additive(alpha, rows.Rows(path))), 1e-9)


def check_tuning(replay, folder):
    """What is tuned in hindsight is at least as good as any setting; a part alone cannot be better."""
    path, out = os.path.join(folder, "check.rows"), os.path.join(folder, "scores.bin")
    tuned = ["kneser_ney:tune=1", "kneser_ney", "additive"]
    fixed = [name for name, *_ in SETTINGS] + ["additive:alpha=0.2", "additive:alpha=1"]
    subprocess.run([replay, path, "--scores", out] + tuned + fixed, check=True,
                   stdout=subprocess.DEVNULL)
    _, hindsight, part, swept, *others = [math.fsum(nats) for nats in rows.scores(out, TOKENS)]
    for name, nats in zip(fixed, others):
        best = swept if name.startswith("additive") else hindsight
        if best > nats + 1e-3:
            sys.exit(f"{name} gives {nats} nats, less than the {best} of the best in hindsight")
    if not hindsight < part:
        sys.exit(f"tuned on a part: {part} nats, on all: {hindsight}")


def main():
    replay, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for vocabulary in (12, 1024):
        check(replay, folder, vocabulary)
    check_tuning(replay, folder)


main()
