/* Whether two corpora share data: equal shards, or documents of equal hash. A model that was
 * trained on its validation data scores far too well, so this is looked for rather than trusted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "corpus.h"
#include "files.h"

enum { HASH_BYTES = 32 };

/* Two paths, or a copy: shards of equal length that differ do so on their first pages. */
static bool share_shard(const struct corpus *a, const struct corpus *b, char *what, size_t size) {
    const char *path, *other;
    uint64_t n, m;
    const uint16_t *tokens, *others;
    for (size_t i = 0; (tokens = corpus_shard(a, i, &path, &n)) != NULL; i++)
        for (size_t j = 0; (others = corpus_shard(b, j, &other, &m)) != NULL; j++) {
            if (n == 0 || n != m || memcmp(tokens, others, n * sizeof *tokens) != 0) continue;
            if (strcmp(path, other) == 0)
                (void)snprintf(what, size, "the shard %s", path);
            else
                (void)snprintf(what, size, "the tokens of %s, which %s holds too", path, other);
            return true;
        }
    return false;
}

static int compare_hashes(const void *a, const void *b) {
    const struct corpus_document *const *first = a, *const *second = b;
    return memcmp((*first)->hash, (*second)->hash, HASH_BYTES);
}

/* The documents of `corpus` by hash. Empty ones, which are all alike, are left out. */
static const struct corpus_document **sort_documents(const struct corpus *corpus, size_t *n) {
    uint64_t count;
    const struct corpus_document *documents = corpus_documents(corpus, &count);
    const struct corpus_document **sorted = malloc((count + 1) * sizeof *sorted);
    uint8_t empty[HASH_BYTES];
    sha256_bytes(NULL, 0, empty);
    *n = 0;
    for (uint64_t i = 0; sorted != NULL && i < count; i++)
        if (memcmp(documents[i].hash, empty, HASH_BYTES) != 0) sorted[(*n)++] = &documents[i];
    if (sorted != NULL) qsort(sorted, *n, sizeof *sorted, compare_hashes);
    return sorted;
}

static bool share_documents(const struct corpus *a, const struct corpus *b, char *what,
                            size_t size) {
    size_t n, m, shared = 0;
    const struct corpus_document **first = sort_documents(a, &n), **second = sort_documents(b, &m),
                                 *example = NULL;
    const bool sorted = first != NULL && second != NULL;
    for (size_t i = 0, j = 0; sorted && i < n && j < m;) {
        const int order = memcmp(first[i]->hash, second[j]->hash, HASH_BYTES);
        if (order == 0) shared++, example = second[j];
        if (order < 0)
            i++;
        else
            j++;
    }
    char hex[65];
    if (example != NULL) {
        sha256_hex(example->hash, hex);
        (void)snprintf(what, size, "%zu of %zu documents (one has the SHA-256 %.16s...)", shared, m,
                       hex);
    }
    if (!sorted) (void)snprintf(what, size, "possibly documents: no memory to compare them");
    free(first);
    free(second);
    return shared > 0 || !sorted;
}

bool corpus_overlap(const struct corpus *a, const struct corpus *b, char *what, size_t size) {
    return share_shard(a, b, what, size) || share_documents(a, b, what, size);
}
