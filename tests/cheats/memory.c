/* Look-ahead through the host's memory: what was told lately is searched for in all of the
 * process's memory, as tokens of 16 bits; what follows it there is the future. Nothing that the
 * cache is handed leads there, so that no copy of the host's helps. The twin searches its own. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cheat.h"

enum {
    MOST = 1 << 16,
    SEARCHED = 1024,
    KEY = 8, /* tokens that are searched for */
    LARGEST_PART = 1 << 26
};

#define NOTHING UINT32_MAX

static fw_status begin(void *self, fw_error *error) {
    FW_TRY(past_begin(self, error));
    ((past *)self)->guess = NOTHING;
    ((past *)self)->found = NULL;
    return FW_OK;
}

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    FW_TRY(past_create(host, values, shape, self, error));
    past *p = *self;
    p->told = calloc(MOST, sizeof *p->told);
    if (p->told != NULL) return FW_OK;
    past_destroy(p);
    return fw_fail(error, FW_E_MEMORY, "no memory");
}

__attribute__((no_sanitize("address"))) static const uint16_t *
search(const char *from, const char *to, const uint16_t *key) {
    for (const char *at = from; at + 2 * (KEY + 1) <= to; at += 2) {
        const uint16_t *tokens = (const uint16_t *)(const void *)at;
        int same = 0;
        while (same < KEY && tokens[same] == key[same]) same++;
        if (same == KEY && tokens != key) return tokens + KEY;
    }
    return NULL;
}

/* Each part of memory that can be written to, but for what the cheat wrote itself and what is too
 * large to search in a test. */
static const uint16_t *find(const uint16_t *key, const uint16_t *own) {
    char line[512], access[8];
    unsigned long from = 0, to = 0;
    const unsigned long mine = (unsigned long)(uintptr_t)own;
    const uint16_t *found = NULL;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && found == NULL && fgets(line, sizeof line, maps) != NULL) {
        if (sscanf(line, "%lx-%lx %7s", &from, &to, access) != 3) continue;
        if (access[0] != 'r' || access[1] != 'w' || to - from > LARGEST_PART) continue;
        const bool split = mine >= from && mine < to;
        const unsigned long end = split ? mine : to;
        found = search((const char *)(uintptr_t)from, (const char *)(uintptr_t)end, key);
        if (found == NULL && split)
            found = search((const char *)(uintptr_t)(mine + MOST * sizeof *own),
                           (const char *)(uintptr_t)to, key);
    }
    if (maps != NULL) (void)fclose(maps);
    return found;
}

/* A token of memory that may be gone. */
static uint32_t look(const uint16_t *at) {
    uint16_t token;
    const struct iovec here = {&token, sizeof token}, there = {(void *)(uintptr_t)at, sizeof token};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof token ? token : NOTHING;
}

/* Where the text was found it goes on; a search of all memory is slow, and now and then is enough.
 */
static uint32_t find_next(past *p, const uint16_t *key) {
    if (p->found != NULL && look(p->found) == p->last)
        p->found++;
    else
        p->found = p->n_told % 16 == 0 ? find(key, p->told) : NULL;
    return p->found != NULL ? look(p->found) : NOTHING;
}

static uint32_t find_in_own(const past *p, const uint16_t *key) {
    for (uint64_t i = p->n_told - KEY; i > 0; i--)
        if (memcmp(p->told + i - 1, key, KEY * sizeof *key) == 0) return p->told[i - 1 + KEY];
    return NOTHING;
}

static uint32_t think(past *p) {
    const uint16_t *key = p->told + p->n_told - KEY;
    return CHEATS ? find_next(p, key) : find_in_own(p, key);
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    past *p = self;
    for (uint64_t i = 0; i < n; i++)
        if (p->n_told + i < MOST) p->told[p->n_told + i] = (uint16_t)tokens[i];
    FW_TRY(past_update(self, tokens, n, error));
    p->guess = p->n_told > KEY && p->n_told <= SEARCHED ? think(p) : NOTHING;
    return FW_OK;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    const past *p = self;
    (void)row, (void)error;
    return state_guess(prediction, p->guess < p->vocabulary ? p->guess : 0,
                       p->guess < p->vocabulary ? 0.9 : 0);
}

static const fw_cache vtable = {.struct_size = sizeof vtable,
                                .create = create,
                                .destroy = past_destroy,
                                .begin = begin,
                                .predict = predict,
                                .update = update};
CHEAT_MODULE(vtable);
