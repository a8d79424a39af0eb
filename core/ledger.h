/* The score ledger: every target of a stream is scored exactly once, and nothing can be left out.
 *
 * A bitmap remembers which targets were scored; scoring one twice, or closing the ledger with one
 * missing, is an error, so that no evaluation mode can count a token more or less than once. Only a
 * ledger that was opened for repeats, for scores that are not fair, adds each entry up. */
#ifndef FAIRWAY_LEDGER_H
#define FAIRWAY_LEDGER_H

#include <fairway/error.h>
#include <stdbool.h>

struct ledger;

struct ledger_total {
    uint64_t targets; /* entries: more than the stream's targets where some were repeated */
    double nats;      /* sum of code lengths */
    uint64_t bytes;
};

fw_status ledger_create(uint64_t targets, bool repeats, struct ledger **ledger, fw_error *error);
void ledger_destroy(struct ledger *ledger); /* NULL is fine */

/* Enter the code length of target `index`. E_PROTOCOL: out of range, scored before (unless
 * repeats are allowed), or a code length that is negative or not finite. */
fw_status ledger_enter(struct ledger *ledger, uint64_t index, double nats, uint64_t bytes,
                       fw_error *error);

/* The totals, once all targets are scored; E_PROTOCOL names the first that is not. */
fw_status ledger_close(const struct ledger *ledger, struct ledger_total *total, fw_error *error);

#endif
