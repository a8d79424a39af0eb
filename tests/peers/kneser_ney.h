/* Interpolated Kneser-Ney over counts that grow with the stream (Kneser and Ney 1995; Chen and
 * Goodman 1999). For the n-gram model of order n, h a context of n - 1 tokens and h' the same
 * without its first: P_n(v|h) = max(c(hv) - D, 0) / c(h.) + D * n(h.) / c(h.) * Q_{n-1}(v|h') with
 * c(hv) how often v followed h, c(h.) the sum over v, n(h.) how many different v followed. The
 * lower orders Q have the same form, but with c(hv) the number of different tokens seen before hv
 * instead of how often it was seen. Below order 1 stands 1/V. A context without counts passes the
 * next lower one on.
 *
 * Modified: D depends on the count, D1 for 1, D2 for 2, D3 for more, by Chen and Goodman's
 * estimates from the numbers n1 to n4 of n-grams of this order with count 1 to 4 (of either kind):
 *     Y = n1/(n1 + 2 n2), D1 = 1 - 2Y n2/n1, D2 = 2 - 3Y n3/n2, D3 = 3 - 4Y n4/n3,
 * each within 0 and its count, and 3/4 for all as long as one of n1 to n4 is 0. */
#ifndef PEERS_KNESER_NEY_H
#define PEERS_KNESER_NEY_H

#include <stdbool.h>
#include <stdint.h>

enum { KNESER_NEY_MOST_ORDER = 6 };
#define KNESER_NEY_MODIFIED (-1.0) /* as a discount */

struct kneser_ney;

/* Orders 1 to `order`. NULL without memory. */
struct kneser_ney *kneser_ney_create(uint32_t vocabulary, uint32_t order);
void kneser_ney_destroy(struct kneser_ney *model); /* NULL is fine */

/* P_n(token | what came last) for n = 1 to `order`, into p[n]. Where fewer than n - 1 tokens came
 * before, that of the longest context there is. */
void kneser_ney_probabilities(const struct kneser_ney *model, uint32_t token, double discount,
                              double *p);

/* Count the next token. False without memory. */
bool kneser_ney_update(struct kneser_ney *model, uint32_t token);

uint64_t kneser_ney_bytes(const struct kneser_ney *model);

#endif
