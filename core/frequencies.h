/* From a distribution to integer frequencies, as an arithmetic coder needs them.
 *
 * The rule, for n tokens with probabilities p(v) and T = 2^32:
 *   S    = p(0) + p(1) + ... + p(n-1), added in this order
 *   f(v) = 1 + floor((p(v) / S) * (T - n))
 *   what is missing to T goes to the most probable token, among equals to the first.
 * So every frequency is at least 1, their sum is T, and a more probable token never has the lower
 * one. All is float64 with IEEE's own operations, one after the other, never fused: equal rows make
 * equal frequencies on every machine. The shares p(v) / S add up to less than 1 + 2^-36 for
 * n <= 65,536, so that the floors never exceed T - n.
 * The rule costs a token at most n/T of its probability, 1.5e-5 for n = 65,536, and no token more
 * than 32 bits. */
#ifndef FAIRWAY_FREQUENCIES_H
#define FAIRWAY_FREQUENCIES_H

#include <fairway/error.h>

#define FREQUENCY_TOTAL (UINT64_C(1) << 32)
enum { FREQUENCY_MOST_TOKENS = 65536 };

/* The frequency of v is cumulative[v + 1] - cumulative[v]; cumulative[0] is 0, cumulative[n] is
 * FREQUENCY_TOTAL. Errors, `cumulative` undefined then: E_NUMERIC names a probability that is
 * negative or not finite, or says that all are 0; E_RANGE: n is 0 or above 65,536. */
fw_status frequencies_form(const double *probabilities, uint32_t n, uint64_t *cumulative,
                           fw_error *error);

#endif
