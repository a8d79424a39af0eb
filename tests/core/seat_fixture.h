/* A cache opened by a real registry, in the host's process or in one of its own, and scored on made
 * up rows. */
#ifndef SEAT_FIXTURE_H
#define SEAT_FIXTURE_H

#include "cache_stream.h"
#include "registry.h"
#include "workspace.h"

enum { SEAT_V = 65, SEAT_SEED = 1234 }; /* the seed: of a cache that is apart */

struct seat {
    struct registry *registry;
    struct plugin_choice choice;
    struct apart apart;
    struct cache_stream *stream;
    fw_value *values;
    fw_row row;
    double probabilities[SEAT_V];
    uint32_t *past; /* tokens scored so far */
    uint64_t n_past;
    fw_error error;
};

/* Find the cache `id` and bind it with these "key=value" (NULL-terminated). */
void seat_find(struct seat *seat, const char *id, bool apart, double seconds,
               const char *const *overrides);
fw_status seat_open(struct seat *seat, const fw_host *host, bool allow_unverified);
void seat_close(struct seat *seat);

/* Score the next position; a row that depends on the position alone. */
fw_status seat_score(struct seat *seat, uint32_t target, double *nats);

/* What the process of the test still holds of others: descriptors, children that were not waited
 * for. */
int open_descriptors(void);
bool has_children(void);

#endif
