/* The channel between the host and a cache in a process of its own: memory that both map, and
 * nothing else.
 *
 * Requests are numbered from 1 and answered in order. They take turns on the slots: the host writes
 * `ask`, the child writes `say`. That there are several lets the host post one request (what a
 * scored token was) and go on to the next (a row) without waiting for the answer to the first; that
 * there are four, that this goes on where a row must stay what it is until then (fairway/cache.h):
 * the next one seldom takes its slot. Whoever waits spins briefly and then sleeps; where spinning
 * was of no use lately, as on a machine with other work, it sleeps at once.
 *
 *     head | ask context row bulk | say tokens values dense bulk | (the next slot's nine) |
 *
 * Each segment ends at the end of a page, and no access is allowed to the page behind it: a cache
 * that reads or writes beyond what it was handed dies of it. The host trusts nothing that it reads
 * here: the layout is its own, and what the child says is copied before it is looked at. */
#ifndef FAIRWAY_SEAT_CHANNEL_H
#define FAIRWAY_SEAT_CHANNEL_H

#include <fairway/error.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    CHANNEL_SLOTS = 4,
    CHANNEL_BULK_BYTES = 65536,
    CHANNEL_TOKENS = CHANNEL_BULK_BYTES / sizeof(uint32_t), /* in one bulk */
    CHANNEL_NOTE_BYTES = 2048
};

enum channel_request {
    ASK_PART = 1, /* bulk: `n` bytes, appended to the child's inbox */
    ASK_CREATE,   /* the inbox: an opening, cache_opening.h */
    ASK_BEGIN,
    ASK_PREFILL,     /* the inbox, then bulk: `n` tokens in all */
    ASK_PREDICT,     /* row, context; says form, n, lm_weight, tokens, values, dense */
    ASK_PROBABILITY, /* of `token` at the row of the last ASK_PREDICT; says probability */
    ASK_UPDATE,      /* as ASK_PREFILL */
    ASK_SNAPSHOT,    /* says bytes, which the child keeps for ASK_FETCH */
    ASK_FETCH,       /* bulk: the kept bytes from `n` on */
    ASK_RESTORE,     /* the inbox: a state */
    ASK_MEMORY,      /* says bytes */
    ASK_LEAVE        /* destroy; the child ends */
};

struct channel_ask {
    uint32_t request;
    uint32_t n_context;
    uint64_t n;
    uint64_t position;
    double entropy;
    uint32_t token;
    uint32_t reserved;
};

struct channel_say {
    int32_t status; /* of the plugin's function */
    uint32_t form, n;
    uint32_t has_probability;
    double lm_weight, probability;
    uint64_t bytes;
    uint32_t note_bytes;
    uint32_t reserved;
    char message[1016];                /* why the status is not FW_OK */
    uint8_t notes[CHANNEL_NOTE_BYTES]; /* log lines and effects, seat_notes.h */
};

struct channel_slot {
    struct channel_ask *ask;
    uint32_t *context; /* as many tokens as the shape says */
    double *row;       /* V */
    uint8_t *bulk_ask; /* CHANNEL_BULK_BYTES */
    struct channel_say *say;
    uint32_t *tokens;  /* V */
    double *values;    /* V */
    double *dense;     /* V */
    uint8_t *bulk_say; /* CHANNEL_BULK_BYTES */
};

/* A number that one side advances, and whether the other sleeps on it. */
struct channel_count {
    _Alignas(64) _Atomic uint32_t number;
    _Atomic uint32_t sleeper;
};

struct channel_head {
    uint32_t vocabulary, context; /* for the child; the host knows */
    int32_t host;                 /* process id */
    struct channel_count asked, answered;
    _Atomic uint64_t fault; /* where an access failed, from the beginning of the channel; 0: none */
};

struct channel {
    struct channel_head *head;
    struct channel_slot slots[CHANNEL_SLOTS];
    size_t bytes;
    uint32_t vocabulary, context;
    int most_spins, spins; /* looks before whoever waits here sleeps: at most, now */
    uint32_t waits;
};

/* Make the memory and map it; `descriptor` is to be handed to the child and closed. Its size is
 * fixed for good, so that no child can take it away under the host. E_MEMORY. */
fw_status channel_create(uint32_t vocabulary, uint32_t context, struct channel *channel,
                         int *descriptor, fw_error *error);

/* The child's side: map what was handed over. E_FORMAT. */
fw_status channel_attach(int descriptor, struct channel *channel, fw_error *error);
void channel_unmap(struct channel *channel); /* an empty one is fine */

/* Set `count` to `number`, which makes all that was written before visible to the other side. With
 * `wake` the other side is woken if it sleeps. */
void channel_advance(struct channel_count *count, uint32_t number, bool wake);

/* Wait until `count` reaches `number`, at most about `seconds` (infinity: for ever); whether it
 * has. */
bool channel_wait(struct channel *channel, struct channel_count *count, uint32_t number,
                  double seconds);

/* What lies before the guard page at `offset`, as a text: "the values of its list"; NULL when
 * `offset` is not in one. */
const char *channel_segment_before(const struct channel *channel, uint64_t offset);

#endif
