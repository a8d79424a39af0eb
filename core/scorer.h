/* A scorer: an artifact read from disk, its model rebuilt from nothing else, ready to evaluate
 * tokens. `fairway run` scores through it too, so what it reports is what anyone can reproduce from
 * the file. */
#ifndef FAIRWAY_SCORER_H
#define FAIRWAY_SCORER_H

#include "artifact.h"
#include "evaluate.h"
#include "session.h"

struct scorer {
    struct session session; /* of the configuration inside the artifact */
    struct artifact artifact;
    struct model *model;
};

/* Kinds that scoring needs; the others stay unbound. */
#define SCORER_KINDS                                                                               \
    (CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) | CONFIG_BIND(FW_QUANTIZER) |              \
     CONFIG_BIND(FW_COMPRESSOR) | CONFIG_BIND(FW_CACHE))

/* Errors: those of artifact_read, config_check_artifact, config_resolve and unpack_weights, with
 * the artifact's path; E_FORMAT before anything is allocated when the declared model is larger than
 * the file can hold. The file may come from anyone: `arguments` alone can name paths. */
fw_status scorer_open(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error);
void scorer_close(struct scorer *scorer);

/* scorer_open in two steps: the first reads the file and loads the code of its plugins, the second
 * creates what they make, and does not close the scorer when it fails. session_start may come in
 * between. */
fw_status scorer_bind(const struct arguments *arguments, const char *path, struct scorer *scorer,
                      fw_error *error);
fw_status scorer_build(const char *path, struct scorer *scorer, fw_error *error);

/* The INI text that an artifact carries, see config_artifact_text. */
fw_status scorer_config_text(const struct session *session, char **text, fw_error *error);

/* A model for inference by the session's configuration, uninitialised. E_UNSUPPORTED when it is to
 * read a stream (eval.mode) and cannot. */
fw_status scoring_model(const struct session *session, uint32_t vocabulary, struct model **model,
                        fw_error *error);

/* Score `corpus` with `model`; options beyond these come from the session. `final`: the score that
 * counts, with its cache (if any), audited, and after the coin test of eval.coin. */
fw_status score_corpus(struct session *session, struct model *model,
                       const struct token_table *table, const struct corpus *corpus, int64_t mode,
                       uint64_t max_tokens, bool final, const char *label,
                       struct evaluate_result *result, fw_error *error);

#endif
