/* Raw text as an index of documents, each read when asked for: text files, JSON lines, lists. */
#ifndef FAIRWAY_TEXT_SOURCE_H
#define FAIRWAY_TEXT_SOURCE_H

#include "corpus.h"

struct text_source;

fw_status text_source_create(struct text_source **source, fw_error *error);
void text_source_destroy(struct text_source *source); /* NULL is fine */

/* Add the documents of the files that match `pattern`; `kind` is text, JSONL or list. E_NOT_FOUND,
 * E_IO, E_MEMORY; E_FORMAT: LIST:LINE and why it is no file name. */
fw_status text_source_add(struct text_source *source, enum source_kind kind, const char *pattern,
                          fw_error *error);

uint64_t text_source_count(const struct text_source *source);

/* Bytes of document `index` as stored: for progress. */
uint64_t text_source_stored_bytes(const struct text_source *source, uint64_t index);

/* The text of document `index`; the caller frees it. E_FORMAT: FILE:LINE and what is wrong with the
 * line; E_IO. */
fw_status text_source_read(const struct text_source *source, uint64_t index, char **text,
                           size_t *bytes, fw_error *error);

/* The documents to use, in order: part and every as in corpus.h, shuffled by Fisher and Yates's
 * method, the same on every machine. The caller frees `order`. */
struct text_selection {
    enum corpus_part part;
    uint32_t every;
    bool shuffle;
    uint64_t seed;
};
fw_status text_source_order(const struct text_source *source,
                            const struct text_selection *selection, uint64_t **order, uint64_t *n,
                            fw_error *error);

#endif
