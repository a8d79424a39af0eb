/* What the command line says about scoring an artifact: the text or tokens (--data, --tokenizer,
 * --model) and the settings that --set may change. */
#ifndef FAIRWAY_SCORED_SOURCE_H
#define FAIRWAY_SCORED_SOURCE_H

#include "scorer.h"

struct scored_source {
    const char *data;              /* corpus.h */
    const char *tokenizer, *model; /* its plugin and model file; NULL: bytes, and none */
    bool keep_text;                /* for corpus_text */
};

/* E_CONFIG: one of the overrides sets what scoring does not use. */
fw_status scored_overrides_check(const struct arguments *arguments, fw_error *error);

/* The same where the model only writes a text: nothing is scored, and no cache is asked. */
fw_status written_overrides_check(const struct arguments *arguments, fw_error *error);

/* The tokenizer in two steps: the first finds the plugin and loads its code; the second creates it
 * with `host`, and makes sure that it is the one of the artifact's table, E_CONFIG. Both fill
 * `text`, which session_close releases before the host goes. */
fw_status scored_tokenizer_bind(const struct arguments *arguments,
                                const struct scored_source *source, struct session *text,
                                fw_error *error);
fw_status scored_tokenizer_start(struct session *text, struct host *host,
                                 const struct token_table *table, fw_error *error);

/* The corpus of a scorer that is open; `text` (zeroed) gets the tokenizer where the source has
 * text, or names one. */
fw_status scored_corpus_open(const struct arguments *arguments, const struct scored_source *source,
                             const struct scorer *scorer, struct session *text,
                             struct corpus **corpus, fw_error *error);

#endif
