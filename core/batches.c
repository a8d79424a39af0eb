#include "batches.h"

#include <stdlib.h>

#include "random.h"

struct batches {
    const struct corpus *corpus;
    uint64_t tokens; /* T */
    uint64_t seed;
    uint64_t sequences; /* of one epoch */
    uint64_t *order;    /* of the current epoch; NULL: in order */
    uint64_t epoch;
};

/* Fisher and Yates's shuffle, by seed and epoch alone. */
static void shuffle_epoch(struct batches *b, uint64_t epoch) {
    struct random random = random_seeded(b->seed ^ (epoch + 1) * UINT64_C(0x9e3779b97f4a7c15));
    for (uint64_t i = 0; i < b->sequences; i++) b->order[i] = i;
    for (uint64_t i = b->sequences; i > 1; i--) {
        const uint64_t j = random_below(&random, i), last = b->order[i - 1];
        b->order[i - 1] = b->order[j];
        b->order[j] = last;
    }
    b->epoch = epoch;
}

static fw_status allocate(struct batches *b, bool shuffled, fw_error *error) {
    if (!shuffled) return FW_OK;
    b->sequences = (corpus_tokens(b->corpus) - 1) / b->tokens;
    if (b->sequences == 0)
        return fw_fail(
            error, FW_E_FORMAT,
            "the training data hold %llu tokens, less than one sequence of data.sequence = %llu "
            "and the token after it",
            (unsigned long long)corpus_tokens(b->corpus), (unsigned long long)b->tokens);
    b->order = malloc(b->sequences * sizeof *b->order);
    if (b->order == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for the order of %llu sequences",
                       (unsigned long long)b->sequences);
    shuffle_epoch(b, 0);
    return FW_OK;
}

fw_status batches_create(const struct corpus *corpus, int64_t tokens, bool shuffled, uint64_t seed,
                         struct batches **batches, fw_error *error) {
    struct batches *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for batches");
    made->corpus = corpus;
    made->tokens = (uint64_t)tokens;
    made->seed = seed;
    const fw_status status = allocate(made, shuffled, error);
    if (status == FW_OK)
        *batches = made;
    else
        batches_destroy(made);
    return status;
}

void batches_destroy(struct batches *batches) {
    if (batches == NULL) return;
    free(batches->order);
    free(batches);
}

static uint64_t position_of(struct batches *b, uint64_t sequence) {
    if (b->order == NULL) return sequence * b->tokens;
    const uint64_t epoch = sequence / b->sequences;
    if (epoch != b->epoch) shuffle_epoch(b, epoch);
    return b->order[sequence % b->sequences] * b->tokens;
}

void batches_locate(struct batches *b, uint64_t first, int64_t n, uint64_t *positions) {
    for (int64_t s = 0; s < n; s++) positions[s] = position_of(b, first + (uint64_t)s);
}

void batches_read_at(const struct batches *b, uint64_t position, int32_t *inputs,
                     int32_t *targets) {
    enum { MOST = 1024 }; /* by pieces that fit the stack */
    uint16_t span[MOST + 1];
    for (uint64_t done = 0; done < b->tokens; done += MOST) {
        const uint64_t n = b->tokens - done < MOST ? b->tokens - done : MOST;
        corpus_read(b->corpus, position + done, n + 1, span);
        for (uint64_t i = 0; i < n; i++) inputs[done + i] = span[i];
        for (uint64_t i = 0; i < n; i++) targets[done + i] = span[i + 1];
    }
}

void batches_read(struct batches *b, uint64_t first, int64_t n, int32_t *inputs, int32_t *targets) {
    for (int64_t s = 0; s < n; s++) {
        const uint64_t at = (uint64_t)s * b->tokens;
        batches_read_at(b, position_of(b, first + (uint64_t)s), inputs + at, targets + at);
    }
}
