/* The experiment: an INI file, its bases and --set overrides -> typed, checked, fully resolved.
 *
 * Sections: [run] [data] [model] [eval] (core keys, tables in config_keys.c) and those that choose
 * a plugin by `plugin = NAME` and pass it the other keys: [tokenizer] [attention]
 * [optimizer.matrix] [optimizer.embed] [optimizer.scalar] [average] [quantize] [compress] [cache]
 * [counterpart];
 * [device] holds the parameters of the device that `[run] device` names. [attention.LAYERS], LAYERS
 * = "3", "0-6" or "0-2,5", overrides [attention] for these layers. `[run] base = FILE` inherits;
 * later wins. Paths in a file are relative to that file, paths in --set to the working directory.
 */
#ifndef FAIRWAY_CONFIG_H
#define FAIRWAY_CONFIG_H

#include <stdbool.h>

#include "registry.h"

struct run_keys {
    const char *name;   /* default: the INI's name without directory and .ini */
    const char *output; /* run directory; default runs/NAME */
    const char *device; /* auto, cpu, cuda, or a path */
    int64_t seed;
    const char *seeds;        /* "1337, 42, 2024": a run for each; "": run.seed alone */
    int64_t threads;          /* 0: all */
    int64_t steps;            /* 0: no limit; at least one of steps and seconds is set */
    double seconds;           /* training time limit; 0: none */
    int64_t batch_tokens;     /* tokens of one step; a multiple of data.sequence */
    int64_t micro_batch;      /* sequences of one forward/backward; 0: all of the step */
    int64_t warmup_steps;     /* learning rate rises linearly over these */
    int64_t warmdown_steps;   /* and falls linearly to 0 over the last of these */
    int64_t priming_steps;    /* taken before the clock starts, and undone */
    double qat_below;         /* quantization-aware once the schedule is below this; 0: never */
    double gradient_clip;     /* largest global norm; 0: off */
    int64_t validate_every;   /* steps; 0: only at the end */
    int64_t log_every;        /* steps between lines of the log */
    int64_t checkpoint_every; /* steps; 0: none */
    int64_t size_limit;       /* bytes of artifact and code, 16,000,000 */
    int64_t calibration_tokens;
    bool fit_size;      /* lower the quantizer's rate until they fit */
    bool deterministic; /* the device decides nothing by timing */
};

enum data_shuffle { SHUFFLE_NONE, SHUFFLE_DOCUMENTS, SHUFFLE_SEQUENCES };

struct data_keys {
    const char *train, *validation; /* sources, corpus.h; "" when absent */
    int64_t sequence;               /* T of training */
    int64_t hold_out_every;         /* n > 0: every n-th training document becomes validation */
    int64_t shuffle;                /* enum data_shuffle */
    bool compare_xz;                /* report `xz -9e` of the validation text (text sources) */
};

struct model_keys {
    int64_t layers, width, mlp_width;
    int64_t vocabulary; /* that the tokenizer must have; 0: whatever it has */
    double softcap, embedding_init;
    int64_t bigram_slots, bigram_width; /* slots 0: no bigram table */
    double bigram_scale;
    bool smear, x0_mix, skips, layer_scales, depth_norm;
    const char *value_layers; /* "9,10": layers with value embeddings; "": none */
    int64_t value_width;
    double value_scale, value_init;
};

enum eval_mode { EVAL_PLAIN = 0, EVAL_SLIDING = 1, EVAL_STREAM = 2 };
enum eval_audit { EVAL_AUDIT_OFF = 0, EVAL_AUDIT_SAMPLE = 1, EVAL_AUDIT_FULL = 2 };
enum eval_violation { EVAL_VIOLATION_ERROR = 0, EVAL_VIOLATION_REPORT = 1 };

struct eval_keys {
    int64_t mode;                /* enum eval_mode */
    int64_t window;              /* inputs, context included; 0: data.sequence */
    int64_t stride;              /* of sliding windows */
    int64_t batch;               /* windows in one forward pass */
    int64_t chunk;               /* tokens that a stream is read by; 0: eval.batch windows */
    int64_t max_tokens;          /* of validation; 0: all */
    int64_t ladder_tokens;       /* of the raw/averaged/packed comparison; 0: all */
    int64_t stream_check_tokens; /* of the comparison of stream and sliding; 0: none */
    int64_t on_violation;        /* enum eval_violation */
    int64_t audit;               /* enum eval_audit */
    int64_t audit_seed;          /* which positions; -1: fresh ones */
    int64_t coin;                /* random tokens of the coin test; 0: none */
    int64_t coin_seed;           /* which; -1: fresh ones */
    int64_t ranks;               /* parts of the stream, each with a cold cache of its own */
    bool warm_start;             /* not cold: after all tokens before the part */
    bool faithful;               /* count as record 993 does, targets at the end several times */
    bool isolate;                /* caches sit in processes of their own */
    double cache_timeout;        /* seconds that such a process has for each answer */
};

/* A cache that sits in a process of its own (cache_seat.h). */
struct apart {
    double seconds; /* that it has for each answer */
    uint64_t seed;  /* of the run, for fw_host.seed */
};

/* One section that chooses a plugin. `entry` and `values` are set once it is bound. */
struct plugin_choice {
    uint32_t kind;
    const char *section; /* "cache", "optimizer.matrix", "attention" */
    const char *name;    /* as in plugin = ... */
    const char *where;   /* FILE:LINE of its plugin or first key, in the last file that has it */
    const struct registry_entry *entry;
    fw_value *values;          /* in the order of the plugin's table */
    const struct apart *apart; /* NULL: in the host's process */
};

enum { OPTIMIZER_MATRIX, OPTIMIZER_EMBED, OPTIMIZER_SCALAR, OPTIMIZER_GROUPS };

struct experiment {
    struct run_keys run;
    struct data_keys data;
    struct model_keys model;
    struct eval_keys eval;
    struct plugin_choice device, tokenizer, average, quantize, compress, cache;
    struct plugin_choice counterpart; /* the honest cache that is scored beside an unverified one */
    struct plugin_choice optimizer[OPTIMIZER_GROUPS];
    struct plugin_choice *attention; /* model.layers entries */
    const uint8_t *value_layers;     /* model.layers flags: value embeddings there */
    const char *passed_over; /* why run.device = auto passed over a CUDA plugin that is there but
                                cannot be loaded; NULL: it did not */
    char hash[65];           /* of what decides the results, see config_text */
    char seedless_hash[65];  /* the same without run.seed: what repeated runs share */
};

struct config;

/* Read the INI (or `text` under the name `path` when text is not NULL) with its bases, then apply
 * `overrides` ("section.key=value"). Errors carry FILE:LINE: syntax, unknown section or core key
 * (nearest suggested), base loops. A text has no base: E_CONFIG. */
fw_status config_load(const char *path, const char *text, const char *const *overrides,
                      size_t n_overrides, struct config **config, fw_error *error);
void config_destroy(struct config *config); /* and its experiment; NULL is fine */

/* Kinds to bind, as a mask of 1 << FW_KIND. Sections of other kinds keep their text unchecked, so
 * that an artifact can be scored without, say, the tokenizer's library. */
#define CONFIG_BIND(kind) (1u << (kind))
#define CONFIG_BIND_ALL 0xffffffffu

/* Type and check everything; find and bind the plugins. The experiment belongs to the config.
 * Errors: FILE:LINE of the offending key where there is one. */
fw_status config_resolve(struct config *config, struct registry *registry, uint32_t bind,
                         const struct experiment **experiment, fw_error *error);

/* Canonical INI text with every key of every section, absolute paths, stable order; `sections` =
 * NULL or a NULL-terminated list of the sections to write ("attention" includes
 * [attention.LAYERS]). Caller frees. Loading it again yields the same text.
 *
 * experiment.hash is the SHA-256 of this text, of all sections, with what depends on the place
 * alone taken out: no run.name, no run.output, no run.seeds (which only says what other runs are
 * made), of every path and source its last component, of a plugin its id. So the same experiment in
 * two folders has one hash. It does not cover the files' contents: of modules a receipt has the
 * hashes, of the validation text how much was scored. */
fw_status config_text(const struct config *config, const char *const *sections, char **text,
                      fw_error *error);

/* SHA-256 of these sections in the form that experiment.hash is of. E_MEMORY. */
fw_status config_sections_hash(const struct config *config, const char *const *sections,
                               char hex[65], fw_error *error);

/* The part that an artifact carries, in the same form: [model] [attention] [quantize] [compress]
 * [cache] [counterpart], data.sequence, and [eval] without the keys that limit how much is scored.
 * Plugins are written as ids, so that the file holds no path. E_CONFIG: a plugin's key holds one.
 */
fw_status config_artifact_text(const struct config *config, char **text, fw_error *error);

/* Hold the INI text of an artifact, which may come from anyone, against what
 * config_artifact_text writes, before any of it is acted on: E_FORMAT, one sentence with `path`,
 * for another section or key, a base, or a plugin named by a path. Opens no file. */
fw_status config_check_artifact(const char *path, const char *text, fw_error *error);

/* After resolving such a text: E_FORMAT when it gives a plugin a path, which the overrides alone
 * may. */
fw_status config_check_artifact_paths(struct config *config, fw_error *error);

/* Append "SECTION.plugin=PATH" to `overrides` for each plugin of config_artifact_text's sections
 * that is named by a path, so that the artifact just written is read with the same modules. The
 * texts are the config's. E_LIMIT beyond `most`. */
fw_status config_plugin_overrides(struct config *config, const char **overrides, size_t *n,
                                  size_t most, fw_error *error);

/* FILE:LINE of a key, "command line" or "default": for messages of later stages. Never NULL. */
const char *config_where(const struct config *config, const char *section, const char *key);

/* Whether a bound choice does something: the plugins called "none" leave things as they are. */
bool choice_is_on(const struct plugin_choice *choice);

/* Whether a bound cache declares that its predictions cannot be verified. */
bool choice_is_unverified(const struct plugin_choice *choice);

/* Say where the plugin that failed was chosen: "FILE:LINE: [SECTION] plugin ID: WHY"; returns
 * `status`. For what its create() and plan() report. */
fw_status choice_fail(const struct plugin_choice *choice, fw_status status, const char *why,
                      fw_error *error);

/* All of the reference as Markdown: core keys and the parameters of every plugin in the registry's
 * scan. Caller frees. */
fw_status config_reference(struct registry *registry, char **markdown, fw_error *error);

#endif
