/* The host's own INI keys: default, range, unit and meaning of each. The reference, the resolved
 * INI and every error message come from these tables. */
#include "config_keys.h"

#include <math.h>
#include <string.h>

#include "seeds.h"

#define AT(member) offsetof(struct experiment, member)
#define NUMBER(type_, key_, default_, min_, max_, unit_, member, doc_)                             \
    { FW_PARAM_RANGE(type_, key_, default_, min_, max_, unit_, doc_), AT(member), KEY_PLAIN }
/* Counts stay below 2^31, so that the product of any two fits into 64 bits. */
#define COUNT(key_, default_, min_, unit_, member, doc_)                                           \
    NUMBER(FW_PARAM_INT, key_, default_, min_, INT32_MAX, unit_, member, doc_)
#define TOTAL(key_, default_, min_, unit_, member, doc_)                                           \
    NUMBER(FW_PARAM_INT, key_, default_, min_, 1e15, unit_, member, doc_)
#define FLAG(key_, default_, member, doc_)                                                         \
    { FW_PARAM_PLAIN(FW_PARAM_BOOL, key_, default_, doc_), AT(member), KEY_PLAIN }
#define TEXT(type_, key_, default_, text_, member, doc_)                                           \
    { FW_PARAM_PLAIN(type_, key_, default_, doc_), AT(member), text_ }
#define CHOICE(key_, default_, choices_, member, doc_)                                             \
    { FW_PARAM_CHOICE(key_, default_, choices_, doc_), AT(member), KEY_PLAIN }

static const struct core_key run_keys[] = {
    TEXT(FW_PARAM_STRING, "name", "", KEY_NAME, run.name,
         "name of the experiment; empty: that of the INI file"),
    TEXT(FW_PARAM_PATH, "output", "", KEY_OUTPUT, run.output,
         "run directory; empty: runs/NAME in the working directory"),
    TEXT(FW_PARAM_STRING, "device", "auto", KEY_PLUGIN, run.device,
         "device plugin; auto: cuda where it finds a device, else cpu"),
    NUMBER(FW_PARAM_INT, "seed", "1337", 0, LARGEST_SEED, "", run.seed,
           "seed of weights, batches and everything random"),
    TEXT(FW_PARAM_STRING, "seeds", "", KEY_PLAIN, run.seeds,
         "several, such as 1337, 42, 2024: one run for each, then mean and deviation"),
    NUMBER(FW_PARAM_INT, "threads", "0", 0, 4096, "threads", run.threads,
           "CPU threads; 0: all of the machine"),
    COUNT("steps", "0", 0, "steps", run.steps,
          "length of the training; 0: limited by seconds alone"),
    NUMBER(FW_PARAM_FLOAT, "seconds", "0", 0, 1e9, "s", run.seconds,
           "time limit of the training; 0: limited by steps alone"),
    COUNT("batch_tokens", "8192", 1, "tokens", run.batch_tokens,
          "tokens of one step; a multiple of data.sequence"),
    COUNT("micro_batch", "0", 0, "sequences", run.micro_batch,
          "sequences of one forward and backward pass; 0: all of the step"),
    COUNT("warmup_steps", "0", 0, "steps", run.warmup_steps,
          "the learning rate rises linearly over these"),
    COUNT("warmdown_steps", "0", 0, "steps", run.warmdown_steps,
          "the learning rate falls linearly to 0 over the last of these"),
    COUNT("priming_steps", "0", 0, "steps", run.priming_steps,
          "steps before the clock starts, whose effects are undone: memory and kernels get warm"),
    NUMBER(FW_PARAM_FLOAT, "qat_below", "0", 0, 1, "", run.qat_below,
           "quantization-aware training once the learning rate's scale is below this; 0: never"),
    NUMBER(FW_PARAM_FLOAT, "gradient_clip", "0.3", 0, 1e30, "", run.gradient_clip,
           "largest global norm of the gradient; 0: no clipping"),
    COUNT("validate_every", "0", 0, "steps", run.validate_every,
          "steps between validations; 0: only at the end"),
    COUNT("log_every", "10", 1, "steps", run.log_every, "steps between lines of the log"),
    COUNT("checkpoint_every", "0", 0, "steps", run.checkpoint_every,
          "steps between checkpoints, from which --resume goes on; 0: none"),
    TOTAL("size_limit", "16000000", 1, "bytes", run.size_limit, "largest artifact, code included"),
    FLAG(
        "fit_size", "yes", run.fit_size,
        "when the artifact is too large, lower the rate of a quantizer that has one until it fits"),
    COUNT(
        "calibration_tokens", "65536", 1, "tokens", run.calibration_tokens,
        "training tokens that a quantizer is shown, if it calibrates, before it packs; rounded up "
        "to whole batches of evaluation"),
    FLAG("deterministic", "no", run.deterministic,
         "the device decides nothing by timing, so that runs on it repeat bit for bit; a CPU "
         "repeats anyway"),
};

static const char *const shuffles[] = {"none", "documents", "sequences", NULL};

static const struct core_key data_keys[] = {
    TEXT(FW_PARAM_STRING, "train", "", KEY_SOURCES, data.train,
         "training sources: shard globs, text:GLOB, jsonl:GLOB, list:FILE"),
    TEXT(FW_PARAM_STRING, "validation", "", KEY_SOURCES, data.validation, "validation sources"),
    NUMBER(FW_PARAM_INT, "sequence", "512", 1, 1 << 20, "tokens", data.sequence,
           "length of training sequences"),
    COUNT("hold_out_every", "0", 0, "documents", data.hold_out_every,
          "every n-th training document becomes validation; 0: none"),
    CHOICE(
        "shuffle", "sequences", shuffles, data.shuffle,
        "what the seed puts in random order for training: documents of text sources, or sequences"),
    FLAG("compare_xz", "no", data.compare_xz, "report how small xz -9e makes the validation text"),
};

static const struct core_key model_keys[] = {
    NUMBER(FW_PARAM_INT, "layers", "4", 1, 256, "layers", model.layers, "transformer blocks"),
    NUMBER(FW_PARAM_INT, "width", "256", 1, 65536, "", model.width, "width of the residual stream"),
    NUMBER(FW_PARAM_INT, "mlp_width", "768", 1, 1 << 20, "", model.mlp_width,
           "hidden width of the MLP"),
    NUMBER(FW_PARAM_INT, "vocabulary", "0", 0, 65536, "tokens", model.vocabulary,
           "tokens that the tokenizer must have; 0: whatever it has"),
    NUMBER(FW_PARAM_FLOAT, "softcap", "30", 0, 1e6, "", model.softcap,
           "logits are softcap * tanh(logits / softcap); 0: uncapped"),
    NUMBER(FW_PARAM_FLOAT, "embedding_init", "0.005", 0, 100, "", model.embedding_init,
           "standard deviation of the initial embedding"),
    NUMBER(FW_PARAM_INT, "bigram_slots", "0", 0, 1 << 24, "slots", model.bigram_slots,
           "hashed table of token pairs, added to the embedding; 0: none, else at least 2"),
    NUMBER(FW_PARAM_INT, "bigram_width", "128", 1, 65536, "", model.bigram_width,
           "width of that table, projected to the model's unless equal"),
    NUMBER(FW_PARAM_FLOAT, "bigram_scale", "0.05", -100, 100, "", model.bigram_scale,
           "initial scale of what it adds"),
    FLAG("smear", "no", model.smear,
         "mix each embedding with the one before it, by a learned gate per channel"),
    FLAG("x0_mix", "no", model.x0_mix,
         "each layer begins with a learned mix of the residual stream and the embedding"),
    FLAG("skips", "no", model.skips,
         "add the outputs of the first half of the layers to the inputs of the second, last first"),
    FLAG("layer_scales", "no", model.layer_scales,
         "learned scales per channel on what attention and MLP add to the residual stream"),
    FLAG("depth_norm", "no", model.depth_norm, "norms of layer i are divided by sqrt(i + 1)"),
    TEXT(FW_PARAM_STRING, "value_layers", "", KEY_PLAIN, model.value_layers,
         "layers whose attention values get an embedding of the token added, such as 9,10 or 0-2"),
    NUMBER(FW_PARAM_INT, "value_width", "128", 1, 65536, "", model.value_width,
           "width of that embedding, projected to the values' unless equal"),
    NUMBER(FW_PARAM_FLOAT, "value_scale", "0.1", -100, 100, "", model.value_scale,
           "initial scale of what it adds"),
    NUMBER(FW_PARAM_FLOAT, "value_init", "0.01", 0, 100, "", model.value_init,
           "standard deviation of the initial value embedding"),
};

static const char *const modes[] = {"plain", "sliding", "stream", NULL};
static const char *const audits[] = {"off", "sample", "full", NULL};
static const char *const violations[] = {"error", "report", NULL};

static const struct core_key eval_keys[] = {
    CHOICE(
        "mode", "sliding", modes, eval.mode,
        "plain: windows side by side; sliding: overlapping ones, each token scored once; stream: "
        "read once, with keys and values kept"),
    NUMBER(FW_PARAM_INT, "window", "0", 0, 1 << 20, "tokens", eval.window,
           "inputs of one forward pass, context included, or what attention sees of a stream; 0: "
           "data.sequence"),
    NUMBER(FW_PARAM_INT, "stride", "64", 1, 1 << 20, "tokens", eval.stride,
           "tokens that a sliding window advances, at most the window; in a stream, what a cache "
           "that is told of windows is told at a time"),
    NUMBER(FW_PARAM_INT, "batch", "8", 1, 65536, "windows", eval.batch,
           "windows in one forward pass"),
    NUMBER(FW_PARAM_INT, "chunk", "0", 0, 1 << 20, "tokens", eval.chunk,
           "tokens of a stream in one forward pass; 0: as many as eval.batch windows have"),
    TOTAL("max_tokens", "0", 0, "tokens", eval.max_tokens, "validation tokens to score; 0: all"),
    TOTAL("ladder_tokens", "0", 0, "tokens", eval.ladder_tokens,
          "tokens of the comparison of raw, averaged and packed weights; 0: all"),
    TOTAL("stream_check_tokens", "16384", 0, "tokens", eval.stream_check_tokens,
          "tokens that mode = stream also scores with sliding windows, to say how far the two are "
          "apart; 0: none"),
    CHOICE("on_violation", "error", violations, eval.on_violation,
           "a score whose distribution does not sum to one, or that fails audit or coin test: "
           "stop, or "
           "report it as INVALID"),
    CHOICE("audit", "sample", audits, eval.audit,
           "probes of cache and model while they are scored: none, at sampled positions, or all"),
    NUMBER(FW_PARAM_INT, "audit_seed", "-1", -1, LARGEST_SEED, "", eval.audit_seed,
           "which positions are sampled; -1: fresh ones, whose seed the receipt has"),
    NUMBER(FW_PARAM_INT, "coin", "0", 0, 1e9, "tokens", eval.coin,
           "random tokens of a coin test of cache and model before the score; 0: none"),
    NUMBER(FW_PARAM_INT, "coin_seed", "-1", -1, LARGEST_SEED, "", eval.coin_seed,
           "which random tokens; -1: fresh ones, whose seed the receipt has"),
    NUMBER(FW_PARAM_INT, "ranks", "1", 1, 4096, "", eval.ranks,
           "contiguous parts of the stream, each scored with a cold cache of its own"),
    FLAG("warm_start", "no", eval.warm_start,
         "each part's cache begins after all tokens before it, not cold; for caches whose state "
         "depends on the tokens alone: the score is that of one part"),
    FLAG("faithful", "no", eval.faithful,
         "evaluate as record 993 does: targets at the end count several times; not a fair score"),
    FLAG("isolate", "no", eval.isolate,
         "caches sit in processes of their own, which get nothing of the text but what is scored"),
    NUMBER(FW_PARAM_FLOAT, "cache_timeout", "10", 0.01, 86400, "s", eval.cache_timeout,
           "what an isolated cache has for each answer"),
};

#define CORE(name, doc, keys)                                                                      \
    { name, doc, keys, sizeof keys / sizeof keys[0] }
const struct core_section core_sections[N_CORE_SECTIONS] = {
    CORE("run", "The run: device, length, batch, clock.", run_keys),
    CORE("data", "What is trained on and what is scored.", data_keys),
    CORE("model", "The model's shape.", model_keys),
    CORE("eval", "How the packed model is scored.", eval_keys),
};

#define GROUP(i) (AT(optimizer) + (i) * sizeof(struct plugin_choice))
const struct plugin_section plugin_sections[N_PLUGIN_SECTIONS] = {
    {"device", FW_DEVICE, NULL, "Keys of the device that [run] device names.", AT(device)},
    {"tokenizer", FW_TOKENIZER, "bytes", "How text becomes tokens.", AT(tokenizer)},
    {"attention", FW_ATTENTION, "gqa",
     "The attention sublayer; [attention.3], [attention.0-6] or [attention.0-2,5] changes it for "
     "these layers.",
     AT(attention)},
    {"optimizer.matrix", FW_OPTIMIZER, "muon", "Trains the matrices.", GROUP(OPTIMIZER_MATRIX)},
    {"optimizer.embed", FW_OPTIMIZER, "adamw", "Trains the embedding.", GROUP(OPTIMIZER_EMBED)},
    {"optimizer.scalar", FW_OPTIMIZER, "adamw", "Trains scales, gains and other small vectors.",
     GROUP(OPTIMIZER_SCALAR)},
    {"average", FW_AVERAGER, "ema", "Which weights are exported.", AT(average)},
    {"quantize", FW_QUANTIZER, "int8", "Weights to symbols.", AT(quantize)},
    {"compress", FW_COMPRESSOR, "lzma", "Symbols to bytes.", AT(compress)},
    {"cache", FW_CACHE, "ngram", "The cache that learns from the text already scored.", AT(cache)},
    {"counterpart", FW_CACHE, "ngram",
     "The honest cache that is scored beside one whose score is INVALID.", AT(counterpart)},
};

const struct core_section *core_section_find(const char *name) {
    for (size_t i = 0; i < N_CORE_SECTIONS; i++)
        if (strcmp(core_sections[i].name, name) == 0) return &core_sections[i];
    return NULL;
}

const struct core_key *core_key_find(const struct core_section *section, const char *key) {
    for (size_t i = 0; i < section->n_keys; i++)
        if (strcmp(section->keys[i].param.key, key) == 0) return &section->keys[i];
    return NULL;
}

const struct plugin_section *plugin_section_find(const char *name) {
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++)
        if (strcmp(plugin_sections[i].name, name) == 0) return &plugin_sections[i];
    return NULL;
}
