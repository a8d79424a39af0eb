/* Opens the validation text when its library is loaded, before any call that a host could put into
 * a jail. The decoder of `fairway prove` loads libraries in a jail, too, where it may open nothing:
 * its warden does, and opens libraries alone. */
#include <stdio.h>

#include "known_text.h"

static knower loaded;

static __attribute__((constructor)) void read_early(void) {
    const char *path = getenv("FAIRWAY_CHEAT_TEXT");
    if (CHEATS && path != NULL) know_from(&loaded, fopen(path, "rb"));
}

static void know(knower *k) {
    k->text = loaded.text;
    k->size = loaded.size;
}

KNOWER_MODULE(know, 0);
