/* The two sides of a decoder process: who starts it and listens, and what it says.
 *
 * The process is this program, started afresh: nothing of the memory of whoever encoded is in it,
 * and of descriptors it has those of the artifact, of the proof and of its results. What it sends
 * are the tokens and the text themselves; they are hashed and compared by whoever listens, so that
 * nothing rests on what the process says of itself.
 *
 * A message is u8 kind, u32 size, then so many bytes. */
#ifndef FAIRWAY_PROVE_PROCESS_H
#define FAIRWAY_PROVE_PROCESS_H

#include "bytes.h"
#include "progress.h"

enum prove_descriptor {
    PROVE_ARTIFACT = 3, /* to read */
    PROVE_PROOF = 4,    /* to read */
    PROVE_RESULTS = 5   /* a socket to write to */
};

enum prove_message {
    PROVE_ASKS = 'A',    /* its jail asks: the listener comes along (jail_warden.h) */
    PROVE_SEALED = 'S',  /* the second jail is closed */
    PROVE_TOKENS = 'K',  /* the next tokens, as uint16 */
    PROVE_TEXT = 'T',    /* the next bytes of text */
    PROVE_REFUSED = 'R', /* text: system calls that the jail refused */
    PROVE_FAILED = 'E',  /* u32 status, text: why; the last message */
    PROVE_DONE = 'D'     /* the last message */
};
enum { PROVE_MOST_MESSAGE = 1 << 20 };

/* What the process can be given of the environment, taken before any plugin's code was loaded. */
struct prove_environment {
    char **variables; /* NULL-terminated */
};
fw_status prove_environment_take(struct prove_environment *environment, fw_error *error);
void prove_environment_free(struct prove_environment *environment);

struct prove_order {
    char *const *arguments; /* of the program, NULL-terminated */
    const struct prove_environment *environment;
    int artifact;         /* descriptor */
    const uint8_t *proof; /* the file's bytes */
    size_t proof_bytes;
    const char *const *readable; /* while it loads, if its jail asks; may be NULL otherwise */
    uint64_t tokens;             /* that may come */
    double patience;             /* seconds without a word after which it is given up */
    struct progress *progress;
};

struct prove_outcome {
    uint16_t *tokens; /* found, also those before a failure */
    uint64_t n_tokens;
    struct bytes text;
    char refused[512]; /* calls, in the second jail */
    char unread[512];  /* files that it was refused while it loaded */
    double seconds;
};

void prove_outcome_free(struct prove_outcome *outcome);

/* Start the process, listen until it ends. `outcome` is to be freed in any case. Errors: what the
 * process says, with its status; E_PROTOCOL: it ended without a last word, or said what no decoder
 * says, or nothing in time (it is then killed); E_IO: it could not be started. */
fw_status prove_decode(const struct prove_order *order, struct prove_outcome *outcome,
                       fw_error *error);

/* The side of the process itself. */
void prove_say(enum prove_message kind, const void *data, size_t size);
void prove_say_asks(int listener);

/* The program as decoder: `arguments` are those after the verb. Never returns. */
_Noreturn void prove_decoder(int argc, char **argv);

#endif
