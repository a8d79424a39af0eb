"""Rows files (rows_file.h says what they hold), read and written without the project's own code, and a
synthetic text with a synthetic model's rows to play."""
import array
import math
import random
import struct
import sys

MAGIC = b"fw-rows\x01"


def _packed(code, values):
    data = array.array(code, values)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()


def write(path, vocabulary, tokens, rows, window=64):
    """Every token counts one byte. `rows`: an iterable of lists of log-probabilities, one for each target."""
    targets = len(tokens) - 1
    with open(path, "wb") as file:
        file.write(MAGIC + struct.pack("<IIIIQ", vocabulary, window, window, 0, targets))
        file.write(_packed("H", [1] * vocabulary) + bytes(vocabulary))
        file.write(_packed("H", tokens) + _packed("H", [1] * targets))
        for row in rows:
            file.write(_packed("f", row))


class Rows:
    """`tokens`, and row by row the probabilities that a score rests on, in float64."""

    def __init__(self, path):
        self.file = open(path, "rb")
        start = self.file.read(32)
        if start[:8] != MAGIC or len(start) < 32:
            raise ValueError(f"{path} is not a rows file, which dump_rows writes")
        self.vocabulary, _, _, _, self.targets = struct.unpack("<IIIIQ", start[8:])
        self.file.read(3 * self.vocabulary)
        self.tokens = self._take("H", self.targets + 1)
        self.bytes = self._take("H", self.targets)

    def _take(self, code, n):
        values = array.array(code)
        values.frombytes(self.file.read(n * values.itemsize))
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def __iter__(self):
        for _ in range(self.targets):
            weights = [math.exp(x) for x in self._take("f", self.vocabulary)]
            scale = 1.0 / math.fsum(weights)
            yield [w * scale for w in weights]


def head(path, out, n):
    """The first n tokens of a rows file, as a rows file of its own."""
    with open(path, "rb") as file, open(out, "wb") as copy:
        start = file.read(32)
        vocabulary, *_, targets = struct.unpack("<IIIIQ", start[8:])
        n = min(n - 1, targets)
        copy.write(start[:24] + struct.pack("<Q", n) + file.read(3 * vocabulary))
        for size, kept in ((2 * (targets + 1), 2 * (n + 1)), (2 * targets, 2 * n)):
            copy.write(file.read(size)[:kept])
        copy.write(file.read(4 * vocabulary * n))


def scores(path, targets):
    """What `replay --scores` wrote: a list of code lengths for the model and for each contender."""
    values = array.array("d")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    if sys.byteorder == "big":
        values.byteswap()
    return [values[i:i + targets] for i in range(0, len(values), targets)]


def synthetic_text(vocabulary, n, seed):
    """Words of a few tokens, common and rare ones, and now and then a longer passage again."""
    draw = random.Random(seed)
    words = [[draw.randrange(vocabulary) for _ in range(draw.randint(1, 5))] for _ in range(300)]
    tokens = []
    while len(tokens) < n:
        if len(tokens) > 400 and draw.random() < 0.03:
            begin = draw.randrange(len(tokens) - 100)
            tokens += tokens[begin:begin + draw.randint(5, 90)]
        else:
            tokens += words[int(300 * draw.random() ** 3)]
    return tokens[:n]


def synthetic_rows(vocabulary, tokens, seed):
    """A model with opinions of its own that knows the target one time in three."""
    draw = random.Random(seed)
    bases = [[draw.gauss(0, 1.5) for _ in range(vocabulary)] for _ in range(24)]
    for t in range(1, len(tokens)):
        row = list(bases[draw.randrange(24)])
        if draw.random() < 0.33:
            row[tokens[t]] += 3 + 4 * draw.random()
        top = math.log(sum(math.exp(x) for x in row))
        yield [x - top for x in row]
