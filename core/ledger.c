#include "ledger.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct ledger {
    uint64_t targets, scored, entries;
    bool repeats;
    double nats, carry; /* compensated sum: a stream of 10^10 targets loses nothing */
    uint64_t bytes;
    uint8_t bitmap[];
};

fw_status ledger_create(uint64_t targets, bool repeats, struct ledger **ledger, fw_error *error) {
    struct ledger *made = calloc(1, sizeof *made + (size_t)(targets / 8 + 1));
    if (made == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a ledger of %" PRIu64 " targets",
                       targets);
    made->targets = targets;
    made->repeats = repeats;
    *ledger = made;
    return FW_OK;
}

void ledger_destroy(struct ledger *ledger) { free(ledger); }

static void add_nats(struct ledger *ledger, double nats) {
    const double term = nats - ledger->carry;
    const double sum = ledger->nats + term;
    ledger->carry = (sum - ledger->nats) - term;
    ledger->nats = sum;
}

fw_status ledger_enter(struct ledger *ledger, uint64_t index, double nats, uint64_t bytes,
                       fw_error *error) {
    if (index >= ledger->targets)
        return fw_fail(error, FW_E_PROTOCOL,
                       "target %" PRIu64 " was scored, but there are only %" PRIu64, index,
                       ledger->targets);
    const uint8_t bit = (uint8_t)(1u << (index % 8));
    const bool again = (ledger->bitmap[index / 8] & bit) != 0;
    if (again && !ledger->repeats)
        return fw_fail(error, FW_E_PROTOCOL, "target %" PRIu64 " was scored twice", index);
    if (!isfinite(nats) || nats < 0)
        return fw_fail(error, FW_E_PROTOCOL,
                       "target %" PRIu64 " has code length %g nats; it must be finite and >= 0",
                       index, nats);
    ledger->bitmap[index / 8] |= bit;
    ledger->scored += !again;
    ledger->entries++;
    ledger->bytes += bytes;
    add_nats(ledger, nats);
    return FW_OK;
}

fw_status ledger_close(const struct ledger *ledger, struct ledger_total *total, fw_error *error) {
    for (uint64_t i = 0; ledger->scored < ledger->targets && i < ledger->targets; i++)
        if ((ledger->bitmap[i / 8] >> (i % 8) & 1) == 0)
            return fw_fail(error, FW_E_PROTOCOL,
                           "target %" PRIu64 " was never scored (%" PRIu64 " of %" PRIu64 " were)",
                           i, ledger->scored, ledger->targets);
    *total = (struct ledger_total){ledger->entries, ledger->nats, ledger->bytes};
    return FW_OK;
}
