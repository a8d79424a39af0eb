"""Interpolated Kneser-Ney from its definition (kneser_ney.h has it in words): dictionaries of n-grams and
sets of what stood before them, every sum taken anew for every prediction."""


class KneserNey:
    def __init__(self, vocabulary, order, discount):
        """`discount`: a number, or None for the modified form."""
        self.vocabulary, self.order, self.discount = vocabulary, order, discount
        self.past = []
        self.seen = [{} for _ in range(order + 1)]    # by length: n-gram -> how often
        self.before = [{} for _ in range(order + 1)]  # n-gram -> set of the tokens before it
        self.followers = {}                           # context -> set of the tokens behind it

    def _count(self, gram, top):
        if top:
            return self.seen[len(gram)].get(gram, 0)
        return len(self.before[len(gram)].get(gram, ()))

    def _discounts(self, length, top):
        if self.discount is not None:
            return [self.discount] * 3
        table = self.seen if top else self.before
        counts = [n if top else len(n) for n in table[length].values()]
        n1, n2, n3, n4 = (counts.count(k) for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return [0.75] * 3
        y = n1 / (n1 + 2 * n2)
        raw = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return [min(max(d, 0.0), k + 1.0) for k, d in enumerate(raw)]

    def _probability(self, context, token, top):
        below = (self._probability(context[1:], token, False) if context else 1 / self.vocabulary)
        counts = {v: self._count(context + (v,), top) for v in self.followers.get(context, ())}
        total = sum(counts.values())
        if total == 0:
            return below
        discounts = self._discounts(len(context) + 1, top)
        taken = {v: min(c, discounts[min(c, 3) - 1]) if c > 0 else 0 for v, c in counts.items()}
        held = sum(discounts[min(c, 3) - 1] for c in counts.values() if c > 0)
        return (counts.get(token, 0) - taken.get(token, 0) + held * below) / total

    def probability(self, token):
        n = min(self.order - 1, len(self.past))
        return self._probability(tuple(self.past[len(self.past) - n:]), token, True)

    def update(self, token):
        for length in range(1, self.order + 1):
            if len(self.past) < length - 1:
                break
            gram = tuple(self.past[len(self.past) - length + 1:]) + (token,)
            self.seen[length][gram] = self.seen[length].get(gram, 0) + 1
            self.followers.setdefault(gram[:-1], set()).add(token)
            if len(self.past) >= length:
                self.before[length].setdefault(gram, set()).add(self.past[-length])
        self.past.append(token)
