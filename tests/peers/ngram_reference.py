"""The caches ngram and ngram_counts by brute force, in float64: a dictionary of contexts, for each a list
of followers. What plugins/cache/blend.h, contexts.h and trie.h say in short, in full:

Counts. A context of order o is the last o tokens. Its followers are listed by count, highest first; one whose
count grows changes places with the first of those that had the same count, a new one goes to the end. A token
is counted in the contexts of all orders, from the longest down; with `exclusion` the first that already knew
it is the last to count it.

Match. Behind every token stands the place where the longest context and this token last stood together,
if they did. While the token there comes true, the match goes on and its length grows by one, up to 64; if not,
the place just described is the next match, and its length is how many tokens before it agree.

Prediction. Experts stand on the model's row: each order's list from `min_order` up, on top the match. The top
one gets its weight's share of 1 - 2^-20, the next one of what is left, and so on; the model's row gets the rest
and the 2^-20. An expert that has nothing to say is passed over: no match, no followers, fewer than `min_count`
tokens counted; orders are no longer asked once `stop` or less is left. A list states the `max_followers` first
followers in proportion to count - discount; a match states its token.

Weights by counts (ngram_counts): weight * (1 - discount * followers / tokens counted) for a list, weight *
length / (length + 10) for a match, whose length counts up to `match_length`.

Learned weights (ngram). One for each order and circumstances: how many tokens the context has counted (1, 2, 4,
8, 16 or more), how many followers it has (1, 2, 3, 5, 8, 32 or more), the model's probability of the first
follower (above 0.001, 0.01, 0.05, 0.2, 0.5), whether this order's first follower was right when it was last
asked. For a match: its length, the model's probability of its token, whether the last match was right. Once a token
is known, every expert has a posterior, the share of the probability from itself and below that it gave. From
the top down, with r = 1 at first, the weight moves by r * max(2 / (n + 3), 1 / window) * (posterior - weight),
stays within 0.00001 and 0.9999, n, at first 0, grows by r, and r shrinks by the factor 1 - posterior."""

RESERVE = 2.0 ** -20
LEAST_WEIGHT, MOST_WEIGHT = 1e-5, 1 - 1e-4
MATCH = 0  # the match expert's place among the orders

NGRAM = {"learn": True, "max_order": 0, "min_order": 1, "min_count": 1, "discount": 0.2,
         "max_followers": 64, "match_length": 32, "stop": 0.01, "exclusion": True, "weight": 0.2,
         "window": 64.0}
NGRAM_COUNTS = {**NGRAM, "learn": False, "min_order": 2, "discount": 0.7, "weight": 0.1}


def level(value, steps):
    """How many of the steps the value has passed."""
    return sum(value >= step for step in steps)


class Expert:
    def __init__(self, order, weight, stated, first, cell):
        self.order, self.weight, self.stated, self.first, self.cell = order, weight, stated, first, cell


class NGram:
    def __init__(self, vocabulary, options):
        self.options = options
        self.max_order = options["max_order"] or (6 if vocabulary <= 512 else 4)
        self.past = []
        self.followers = {}    # context -> [[token, count], ...], most frequent first
        self.places = {}       # n-gram longer than every context by one -> position behind it
        self.match, self.match_length = 0, 0
        self.cells = {}        # circumstances -> [weight, updates]
        self.right = {}        # order -> was its first follower right when it was last asked
        self.experts, self.row = [], None

    # ---- prediction ----

    def _cell(self, *circumstances):
        if not self.options["learn"]:
            return None
        return self.cells.setdefault(circumstances, [self.options["weight"], 0.0])

    def _model_level(self, token):
        return sum(self.row[token] > step for step in (0.001, 0.01, 0.05, 0.2, 0.5))

    def _match_expert(self):
        length = min(self.match_length, self.options["match_length"])
        if length == 0:
            return None
        token = self.past[self.match]
        cell = self._cell(MATCH, length, self._model_level(token), self.right.get(MATCH, False))
        weight = cell[0] if cell else self.options["weight"] * length / (length + 10)
        return Expert(MATCH, weight, {token: 1.0}, token, cell)

    def _list_expert(self, order):
        if len(self.past) < order:
            return None
        everyone = self.followers.get(tuple(self.past[len(self.past) - order:]), [])
        total = sum(count for _, count in everyone)
        if not everyone or total < self.options["min_count"]:
            return None
        first, discount = everyone[0][0], self.options["discount"]
        listed = everyone[:self.options["max_followers"]]
        cell = self._cell(order, level(total, (2, 4, 8, 16)), level(len(everyone), (2, 3, 5, 8, 32)),
                          self._model_level(first), self.right.get(order, False))
        weight = cell[0] if cell else self.options["weight"] * (1 - discount * len(everyone) / total)
        scale = sum(count - discount for _, count in listed)
        return Expert(order, weight, {v: (count - discount) / scale for v, count in listed}, first, cell)

    def predict(self, row):
        """The whole distribution."""
        self.row, self.experts = row, []
        left, masses = 1 - RESERVE, {}
        for order in [MATCH] + list(range(self.max_order, self.options["min_order"] - 1, -1)):
            if order != MATCH and left <= self.options["stop"]:
                break
            expert = self._match_expert() if order == MATCH else self._list_expert(order)
            if expert is None:
                continue
            for token, share in expert.stated.items():
                masses[token] = masses.get(token, 0.0) + left * expert.weight * share
            left *= 1 - expert.weight
            self.experts.append(expert)
        weight = left + RESERVE
        whole = weight + sum(masses.values())
        return [(weight * p + masses.get(v, 0.0)) / whole for v, p in enumerate(row)]

    # ---- learning ----

    def _learn(self, token):
        below, posteriors = self.row[token], []
        for expert in reversed(self.experts):
            own = expert.weight * expert.stated.get(token, 0.0)
            below = own + (1 - expert.weight) * below
            posteriors.insert(0, own / below if below > 0 else 0.0)
        reached = 1.0
        for expert, posterior in zip(self.experts, posteriors):
            weight, updates = expert.cell
            rate = max(2 / (updates + 3), 1 / self.options["window"])
            weight += rate * reached * (posterior - weight)
            expert.cell[:] = min(max(weight, LEAST_WEIGHT), MOST_WEIGHT), updates + reached
            reached *= 1 - posterior
            self.right[expert.order] = expert.first == token

    def _count(self, context, token):
        """Count, and say whether the token had followed before."""
        here = self.followers.setdefault(context, [])
        for place, (known, count) in enumerate(here):
            if known == token:
                front = next(i for i, other in enumerate(here) if other[1] == count)
                here[place], here[front] = here[front], here[place]
                here[front][1] += 1
                return True
        here.append([token, 1])
        return False

    def _follow_match(self, token):
        """Go on with a match that was right; else take the place behind the last occurrence of what the
        longest context and the token make together."""
        end = len(self.past)
        right = self.match_length > 0 and self.past[self.match] == token
        gram = tuple(self.past[max(0, end - self.max_order):]) + (token,)
        found = self.places.get(gram) if len(gram) == self.max_order + 1 else None
        self.places[gram] = end + 1
        self.past.append(token)
        if right:
            self.match, self.match_length = self.match + 1, min(self.match_length + 1, 64)
            return
        self.match_length = 0
        if found is not None:
            self.match = found
            while (self.match_length < min(64, found) and
                   self.past[found - 1 - self.match_length] == self.past[end - self.match_length]):
                self.match_length += 1

    def update(self, token):
        if self.row is not None and self.options["learn"]:
            self._learn(token)
        self.row, self.experts = None, []
        for order in range(min(self.max_order, len(self.past)), 0, -1):
            known = self._count(tuple(self.past[len(self.past) - order:]), token)
            if known and self.options["exclusion"]:
                break
        self._follow_match(token)
