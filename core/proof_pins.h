/* Pins: what must be equal where a proof is written and where it is decoded, because a row that
 * differs in its last bit decodes to other text. Each has a name, to say what differs, and a value;
 * a file holds 16 bits of it: the number itself, or the first of the value's SHA-256. That is
 * enough to name what differs; whether all came out right is said by the hash of the tokens. */
#ifndef FAIRWAY_PROOF_PINS_H
#define FAIRWAY_PROOF_PINS_H

#include "proof_file.h"
#include "scorer.h"

struct proof_pin {
    const char *name; /* "threads" */
    bool number;      /* the value is one, below 65,536 */
    char value[512];  /* as it is here */
    const char *remedy;
};

struct proof_pins {
    uint32_t n;
    struct proof_pin items[PROOF_MOST_PINS];
};

/* The pins of a scorer that is bound, be it built or not; `text` has the tokenizer's plugin bound,
 * or is NULL. Reads /proc and describes the device. Errors: E_IO; what describe() says. */
fw_status proof_pins_collect(const struct scorer *scorer, const struct session *text,
                             struct proof_pins *pins, fw_error *error);

/* The value of the pin of that name, "" when there is none. */
const char *proof_pin_value(const struct proof_pins *pins, const char *name);

/* What the file holds of a pin. */
uint16_t proof_pin_code(const struct proof_pin *pin);

/* E_CONFIG: the first that differs, what it is here, and what would make it equal. */
fw_status proof_pins_compare(const struct proof_pins *pins, const struct proof_file *file,
                             fw_error *error);

#endif
