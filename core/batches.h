/* Batches: which tokens each training step sees. A pure function of the corpus, the seed and the
 * sequence's number, so that a run can be resumed at any step.
 *
 * In order, sequence k is tokens [k*T, k*T + T) of the corpus, round and round: neighbours in a
 * step are neighbours in the text, as in the challenge's reference. Shuffled, every epoch visits
 * the corpus's whole sequences in a new random order, which small batches need: neighbouring text
 * is alike. */
#ifndef FAIRWAY_BATCHES_H
#define FAIRWAY_BATCHES_H

#include "corpus.h"

struct batches;

/* `tokens` is T. E_FORMAT: shuffled, but the corpus holds no whole sequence. E_MEMORY. */
fw_status batches_create(const struct corpus *corpus, int64_t tokens, bool shuffled, uint64_t seed,
                         struct batches **batches, fw_error *error);
void batches_destroy(struct batches *batches); /* NULL is fine */

/* Where sequences first .. first + n - 1 of the run begin in the corpus. */
void batches_locate(struct batches *batches, uint64_t first, int64_t n, uint64_t *positions);

/* Fill inputs and targets, each [T], with the sequence at `position`. For any number of threads. */
void batches_read_at(const struct batches *batches, uint64_t position, int32_t *inputs,
                     int32_t *targets);

/* Both: fill inputs and targets, each [n, T], with sequences first .. first + n - 1 of the run;
 * targets are the inputs' next tokens. */
void batches_read(struct batches *batches, uint64_t first, int64_t n, int32_t *inputs,
                  int32_t *targets);

#endif
