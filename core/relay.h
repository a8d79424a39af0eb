/* A relay: one thread fills slots in turn, others work through them, each in the same order.
 *
 * Slots are reused in turn; one is free again when every consumer is done with it. Consumers work
 * beside each other and beside the thread that fills, so what they write must be theirs. Without
 * threads everything happens within relay_post, and nothing else is different. */
#ifndef FAIRWAY_RELAY_H
#define FAIRWAY_RELAY_H

#include <fairway/error.h>
#include <stdbool.h>
#include <stdint.h>

struct relay;

struct relay_options {
    uint32_t slots;     /* 1 or more */
    uint32_t consumers; /* at most RELAY_CONSUMERS; 0: slots are free at once */
    bool threads;       /* one for each consumer */
    /* Work through a slot. An error ends the relay. */
    fw_status (*consume)(void *self, uint32_t consumer, uint32_t slot, fw_error *error);
    void *self;
};

enum { RELAY_CONSUMERS = 4 };

/* E_MEMORY: no memory or no threads. */
fw_status relay_create(const struct relay_options *options, struct relay **relay, fw_error *error);

/* Ends threads; what was posted may be left undone. NULL is fine. */
void relay_destroy(struct relay *relay);

/* The slot to fill next, once it is free. Errors: the first that a consumer met, by the order of
 * slots and then of consumers, whichever thread was faster. */
fw_status relay_slot(struct relay *relay, uint32_t *slot, fw_error *error);

/* The slot of relay_slot is full. */
fw_status relay_post(struct relay *relay, fw_error *error);

/* Wait until all that was posted is done. Errors as relay_slot. */
fw_status relay_finish(struct relay *relay, fw_error *error);

#endif
