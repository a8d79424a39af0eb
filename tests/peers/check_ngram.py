"""The caches ngram and ngram_counts against brute force (ngram_reference.py): on synthetic texts and models
every code length within 1e-9 nats. With ROWS, a file that dump_rows wrote, on those instead, with default
keys.
usage: check_ngram.py REPLAY FOLDER [ROWS]"""
import math
import os
import subprocess
import sys

import rows
from ngram_reference import NGRAM, NGRAM_COUNTS, NGram

TOLERANCE = 1e-9
SETTINGS = [("ngram", NGRAM, {}),
            ("ngram_counts", NGRAM_COUNTS, {}),
            ("ngram", NGRAM, {"max_order": 2, "min_order": 2, "discount": 0.5, "max_followers": 3,
                              "exclusion": False, "match_length": 0, "stop": 0.0, "weight": 0.5}),
            ("ngram", NGRAM, {"max_order": 9, "min_count": 3, "window": 1000.0, "match_length": 60}),
            ("ngram_counts", NGRAM_COUNTS, {"min_order": 1, "max_followers": 2, "weight": 0.9})]


def contender(name, changes):
    keys = [f"{key}={'yes' if value is True else 'no' if value is False else value}"
            for key, value in changes.items()]
    return name + (":" + ",".join(keys) if keys else "")


def expected(dump, options):
    cache = NGram(dump.vocabulary, options)
    for row, token in zip(dump, dump.tokens[1:]):
        full = cache.predict(row)
        yield -math.log(full[token])
        cache.update(token)


def check(replay, path, folder, settings):
    out = os.path.join(folder, "scores.bin")
    names = [contender(name, changes) for name, _, changes in settings]
    subprocess.run([replay, path, "--scores", out] + names, check=True, stdout=subprocess.DEVNULL)
    _, *found = rows.scores(out, rows.Rows(path).targets)
    for name, (_, defaults, changes), nats in zip(names, settings, found):
        dump = rows.Rows(path)
        wanted = list(expected(dump, {**defaults, **changes}))
        worst = max(range(dump.targets), key=lambda t: abs(nats[t] - wanted[t]))
        difference = abs(nats[worst] - wanted[worst])
        print(f"V = {dump.vocabulary}, {dump.targets} targets, {name}: {sum(nats):.3f} nats, differs by "
              f"at most {difference:.1e}, at position {worst}", flush=True)
        if not difference <= TOLERANCE:
            sys.exit(f"{name}, position {worst}: {nats[worst]!r} nats instead of {wanted[worst]!r}")


def check_synthetic(replay, folder, vocabulary, n):
    path = os.path.join(folder, f"check-{vocabulary}.rows")
    text = rows.synthetic_text(vocabulary, n + 1, vocabulary)
    rows.write(path, vocabulary, text, rows.synthetic_rows(vocabulary, text, 11))
    check(replay, path, folder, SETTINGS)


def main():
    replay, folder, *given = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for path in given:
        check(replay, path, folder, SETTINGS[:2])
    if not given:
        check_synthetic(replay, folder, 64, 3000)
        check_synthetic(replay, folder, 1024, 1500)


main()
