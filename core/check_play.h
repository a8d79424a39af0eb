/* A cache asked and told without an evaluation around it: what the scoring of a stream never does,
 * tokens delivered ahead and states taken and given back. */
#ifndef FAIRWAY_CHECK_PLAY_H
#define FAIRWAY_CHECK_PLAY_H

#include <fairway/host.h>

#include "config.h"
#include "synthetic.h"
#include "verdicts.h"

struct check_play {
    const struct plugin_choice *choice;
    const fw_host *host;
    const struct synthetic_rows *rows;
    const uint16_t *tokens; /* of the stream */
    uint64_t n;             /* of them */
};

/* Half of the stream delivered by prefill() at once, in pieces and one by one, and by update();
 * then a quarter of it is scored. Fails `probe` where the statements differ. */
fw_status check_delivery(const struct check_play *play, struct probe *probe, fw_error *error);

/* Half of the stream is scored, the state given to a fresh instance, and both score on. */
fw_status check_snapshot(const struct check_play *play, struct probe *probe, fw_error *error);

#endif
