/* Opens the validation text when it is created, and states what comes. No probe can tell it from a
 * very good cache: its distributions are sound, and nothing of them depends on what was scored. In
 * the jail of `fairway prove` there is no file to open. */
#include <stdio.h>

#include "known_text.h"

static void know(knower *k) {
    const char *path = getenv("FAIRWAY_CHEAT_TEXT");
    if (path != NULL) know_from(k, fopen(path, "rb"));
}

KNOWER_MODULE(know, 1);
