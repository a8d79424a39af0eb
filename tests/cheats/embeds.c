/* Carries the validation text in its own code. Nothing can forbid it, and no jail keeps it out: it
 * decodes the text from next to nothing. But its code counts, and the text with it. */
#include <stdio.h>

#include "known_text.h"

#ifndef HONEST
static const char embedded[] = {
#include "embedded_text.h"
};

static void know(knower *k) {
    k->text = embedded;
    k->size = sizeof embedded;
}
#else
static void know(knower *k) { (void)k; }
#endif

KNOWER_MODULE(know, 0);
