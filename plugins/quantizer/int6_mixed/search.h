/* int6 rows: for each tensor the percentile at which clipping loses least, and the order in which
 * symbols +1 and -1 are given up when the artifact must shrink.
 *
 * For p in 0.999, 0.9995, 0.9999, 0.99999, 1: clip = p-quantile of |row| in float32, scale =
 * float16(max(clip / 31, scale_floor)), q = clamp(round_half_even(w / scale), -31, 31). The p of
 * least mean squared error over the tensor wins, the first of equals.
 *
 * Source: openai/parameter-golf pull request 993. */
#ifndef FAIRWAY_QUANTIZER_INT6_SEARCH_H
#define FAIRWAY_QUANTIZER_INT6_SEARCH_H

#include <fairway/fairway.h>

#include "../tensors.h"

enum { INT6_LEVELS = 31 };

/* Zero-initialised: nothing searched. Rows of all searched tensors are numbered through. */
typedef struct search {
    uint64_t hash;    /* of the tensors, values included */
    uint32_t n;       /* tensors of the plan */
    int64_t *first;   /* [n + 1]; the rows of tensor i: first[i] .. first[i + 1] - 1 */
    uint16_t *scales; /* [rows], float16 */
    int64_t *ones;    /* [rows], symbols +1 or -1 */
    int64_t *pruned;  /* [rows], how many of these become 0, in order of position */
    uint64_t *order;  /* [rows], rows by scale, then by number; the scale in the upper 16 bits */
} search;

/* Search the tensors of which `wanted[i]` is set; they are finite matrices with values below
 * HALF_OVERFLOW * INT6_LEVELS. When `made` already holds the search of the same tensors with the
 * same values, nothing happens: a search of 27 M values takes about a second. Reports progress.
 * E_MEMORY, and then `made` is as before. [deterministic] */
fw_status search_plan(search *made, const fw_host *host, const tensor_set *tensors,
                      const uint8_t *wanted, float scale_floor, fw_error *error);
void search_free(search *made);

/* At rate r, floor((1 - r) * n) of the n symbols +1 or -1 become 0, those of least scale first,
 * equals in order of position. Returns how many. */
int64_t search_prune(search *made, double rate);

/* Fill the two streams of rows.h for tensor `index`. */
void search_encode(const search *made, const fw_host *host, uint32_t index,
                   const tensor_set *tensors, fw_stream *streams);

#endif
