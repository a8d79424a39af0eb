#include "synthetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    WORDS = 400,
    LONGEST_WORD = 6,
    LONGEST_DOCUMENT = 300,
    REPEATED = 60, /* tokens that a repeat takes over */
    MOST_HEAT = 6  /* of a row: the larger, the surer */
};

/* ---- text ---- */

fw_status synthetic_table(uint32_t vocabulary, struct token_table **table, fw_error *error) {
    struct token_table *made = calloc(1, sizeof *made);
    if (made != NULL) made->tokens = calloc(vocabulary, sizeof *made->tokens);
    if (made == NULL || made->tokens == NULL) {
        free(made);
        return fw_fail(error, FW_E_MEMORY, "no memory for a table of %u tokens", vocabulary);
    }
    made->vocabulary = vocabulary;
    made->begin_token = 0;
    for (uint32_t v = 0; v < vocabulary; v++) {
        fw_token_info *info = &made->tokens[v];
        info->struct_size = sizeof *info;
        info->boundary = v == 0;
        info->base_bytes = v == 0 ? 0 : (uint16_t)(1 + v % 7);
        info->leading_space = v != 0 && v % 3 == 0;
    }
    *table = made;
    return FW_OK;
}

static uint64_t mixed(uint64_t seed) {
    struct random random = random_seeded(seed);
    return random_bits(&random);
}

/* Letter `i` of a word, the same wherever the word stands. */
static uint16_t letter(const struct token_table *table, uint64_t seed, uint64_t word, uint64_t i) {
    return (uint16_t)(mixed(seed + word * LONGEST_WORD + i) % table->vocabulary);
}

struct writing {
    const struct token_table *table;
    struct random random;
    uint64_t seed, n, at;
    uint16_t *tokens;
};

static void put(struct writing *w, uint16_t token) {
    if (w->at < w->n) w->tokens[w->at++] = token;
}

static void put_edges(struct writing *w) {
    const uint16_t begin = (uint16_t)token_table_begin(w->table);
    put(w, begin);
    put(w, begin);
    for (uint64_t i = 0; i < 4; i++) {
        put(w, begin);
        put(w, (uint16_t)random_below(&w->random, w->table->vocabulary));
    }
}

/* Words by rank, the first most often; or what stood somewhere before. */
static void put_word(struct writing *w) {
    const uint64_t from = random_below(&w->random, w->at);
    if (w->at > REPEATED && from + REPEATED < w->at && random_below(&w->random, 40) == 0) {
        for (uint64_t i = 0; i < REPEATED; i++) put(w, w->tokens[from + i]);
        return;
    }
    const uint64_t word = random_below(&w->random, 1 + random_below(&w->random, WORDS));
    for (uint64_t i = 0; i < 1 + word % LONGEST_WORD; i++)
        put(w, letter(w->table, w->seed, word, i));
}

void synthetic_text(const struct token_table *table, uint64_t seed, uint64_t n, uint16_t *tokens) {
    struct writing w = {table, random_seeded(seed), seed, n, 0, tokens};
    put_edges(&w);
    while (w.at < n) {
        const uint64_t end = w.at + 2 + random_below(&w.random, LONGEST_DOCUMENT);
        put(&w, (uint16_t)token_table_begin(table));
        while (w.at < end && w.at < n) put_word(&w);
    }
}

/* ---- rows ---- */

bool synthetic_keeps_row(uint32_t token) { return mixed(token) % 4 == 0; }

void synthetic_row(const struct synthetic_rows *rows, int32_t previous, int32_t token,
                   float *log_probabilities) {
    const uint32_t V = rows->vocabulary;
    const bool other = rows->other_seed != 0 && !synthetic_keeps_row((uint32_t)token);
    const uint64_t seed = other ? rows->other_seed : rows->seed;
    struct random random =
        random_seeded(mixed(seed + (uint64_t)token) + (uint64_t)(previous + 1) * 977);
    const double heat = rows->uniform ? 0 : 1 + (double)random_below(&random, MOST_HEAT);
    double sum = 0;
    for (uint32_t v = 0; v < V; v++) {
        const double unit = (double)(random_bits(&random) >> 11) * 0x1p-53;
        log_probabilities[v] = (float)(heat * unit);
        sum += exp((double)log_probabilities[v]);
    }
    const double normaliser = log(sum);
    for (uint32_t v = 0; v < V; v++)
        log_probabilities[v] = (float)((double)log_probabilities[v] - normaliser);
}

static fw_status infer(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                       fw_error *error) {
    struct synthetic_rows *rows = self;
    (void)batch, (void)error;
    rows->inputs = inputs;
    rows->length = tokens;
    return FW_OK;
}

static fw_status log_probabilities(void *self, int64_t first, int64_t n, float *host,
                                   fw_error *error) {
    const struct synthetic_rows *rows = self;
    (void)error;
    for (int64_t i = first; i < first + n; i++, host += rows->vocabulary) {
        const int32_t previous = i % rows->length > 0 ? rows->inputs[i - 1] : -1;
        synthetic_row(rows, previous, rows->inputs[i], host);
    }
    return FW_OK;
}

struct language_model synthetic_model(struct synthetic_rows *rows) {
    return (struct language_model){
        .self = rows, .infer = infer, .log_probabilities = log_probabilities};
}
