#include "seeds.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* One item of the list, without the blanks around it. */
struct item {
    const char *text;
    int length;
    size_t index; /* from 0 */
};

static fw_status parse_item(struct item item, const char *where, int64_t *seed, fw_error *error) {
    if (item.length == 0)
        return fw_fail(error, FW_E_CONFIG,
                       "%s: run.seeds: item %zu is empty; write seeds with one comma between two, "
                       "such as 1337, 42, 2024",
                       where, item.index + 1);
    int64_t value = 0;
    for (int i = 0; i < item.length; i++) {
        const int digit = item.text[i] - '0';
        if (digit < 0 || digit > 9 || value > (LARGEST_SEED - digit) / 10)
            return fw_fail(error, FW_E_CONFIG,
                           "%s: run.seeds: \"%.*s\" is no seed; a seed is a whole number from 0 to "
                           "%" PRId64,
                           where, item.length < 64 ? item.length : 64, item.text, LARGEST_SEED);
        value = value * 10 + digit;
    }
    *seed = value;
    return FW_OK;
}

static fw_status keep(int64_t seed, const char *where, int64_t seeds[MAX_SEEDS], size_t *n,
                      fw_error *error) {
    for (size_t i = 0; i < *n; i++)
        if (seeds[i] == seed)
            return fw_fail(error, FW_E_CONFIG,
                           "%s: run.seeds: seed %" PRId64 " occurs twice, as items %zu and %zu; a "
                           "repeated run is no second measurement",
                           where, seed, i + 1, *n + 1);
    if (*n == MAX_SEEDS)
        return fw_fail(error, FW_E_LIMIT, "%s: run.seeds: more than %d seeds", where, MAX_SEEDS);
    seeds[(*n)++] = seed;
    return FW_OK;
}

fw_status seeds_parse(const char *text, const char *where, int64_t seeds[MAX_SEEDS], size_t *n,
                      fw_error *error) {
    int64_t read[MAX_SEEDS];
    size_t n_read = 0;
    const char *const blanks = " \t";
    text += strspn(text, blanks);
    for (bool more = *text != '\0'; more;) {
        text += strspn(text, blanks);
        const size_t whole = strcspn(text, ",");
        size_t length = whole;
        while (length > 0 && strchr(blanks, text[length - 1]) != NULL) length--;
        int64_t seed = 0;
        FW_TRY(parse_item((struct item){text, (int)length, n_read}, where, &seed, error));
        FW_TRY(keep(seed, where, read, &n_read, error));
        more = text[whole] == ',';
        text += whole + (more ? 1 : 0);
    }
    memcpy(seeds, read, n_read * sizeof *read);
    *n = n_read;
    return FW_OK;
}
