/* What an evaluation comes to. */
#include <math.h>

#include "clock.h"
#include "evaluate_internal.h"

/* Raw bytes of what was scored, so that both scores speak of the same text: the stream's first
 * token is never a target. It is a begin token, which stands for none, or its own bytes count off.
 */
static uint64_t scored_raw_bytes(const struct evaluation *e) {
    const struct corpus *corpus = e->options->corpus;
    if (e->windows.targets + 1 != corpus_tokens(corpus)) return 0;
    const uint64_t all = corpus_raw_bytes(corpus);
    const uint64_t first = e->options->table->tokens[e->tokens[0]].base_bytes;
    return all > first ? all - first : 0;
}

/* Raw bytes are those of the whole text, once: they say nothing about repeats. */
static fw_status close_ledger(const struct ledger *ledger, uint64_t raw_bytes, bool fair,
                              struct score *score, fw_error *error) {
    struct ledger_total total;
    FW_TRY(ledger_close(ledger, &total, error));
    const double bits = total.nats / log(2.0);
    *score = (struct score){.nats = total.nats,
                            .bpb = total.bytes > 0 ? bits / (double)total.bytes : 0,
                            .raw_bpb = raw_bytes > 0 && fair ? bits / (double)raw_bytes : 0,
                            .targets = total.targets,
                            .bytes = total.bytes,
                            .fair = fair};
    return FW_OK;
}

/* What each cache was told last has arrived, and what it took to have them elsewhere. */
static fw_status summarise_isolation(struct cache_stream *stream, struct evaluate_result *made,
                                     fw_error *error) {
    struct cache_summary summary;
    FW_TRY(cache_stream_end(stream, error));
    cache_stream_summary(stream, &summary);
    made->isolated = summary.isolated;
    made->isolation.seconds += summary.waiting.seconds;
    made->isolation.answers += summary.waiting.answers;
    return FW_OK;
}

static fw_status summarise_caches(const struct evaluation *e, struct evaluate_result *made,
                                  fw_error *error) {
    FW_TRY(summarise_isolation(e->cache.stream, made, error));
    FW_TRY(close_ledger(e->cache.ledger, made->raw_bytes, !e->cache.repeats, &made->cached, error));
    struct cache_summary summary;
    cache_stream_summary(e->cache.stream, &summary);
    made->cache_changed = summary.changed;
    made->cache_memory = summary.memory_bytes;
    made->invalid = summary.invalid;
    made->mean_sum = summary.mean_sum;
    made->largest_sum = summary.largest_sum;
    if (e->second.stream != NULL) {
        FW_TRY(summarise_isolation(e->second.stream, made, error));
        cache_stream_summary(e->second.stream, &summary);
        made->cache_changed += summary.changed;
        made->cache_memory += summary.memory_bytes;
        made->invalid = made->invalid || summary.invalid;
        made->mean_sum = fmax(made->mean_sum, summary.mean_sum);
        made->largest_sum = fmax(made->largest_sum, summary.largest_sum);
    }
    made->has_counterpart = e->counterpart.stream != NULL;
    if (!made->has_counterpart) return FW_OK;
    FW_TRY(summarise_isolation(e->counterpart.stream, made, error));
    return close_ledger(e->counterpart.ledger, made->raw_bytes, true, &made->counterpart, error);
}

fw_status evaluate_summarise(const struct evaluation *e, struct evaluate_result *result,
                             fw_error *error) {
    struct evaluate_result made = {.raw_bytes = scored_raw_bytes(e)};
    const bool fair = e->fair_ledger == NULL;
    FW_TRY(close_ledger(e->ledger, made.raw_bytes, fair, &made.model, error));
    made.fair_model = made.model;
    if (!fair) FW_TRY(close_ledger(e->fair_ledger, made.raw_bytes, true, &made.fair_model, error));
    made.check.made = e->beginning != NULL;
    if (made.check.made) FW_TRY(close_ledger(e->beginning, 0, true, &made.check.stream, error));
    made.targets = made.model.targets;
    made.bytes = made.model.bytes;
    if (e->cache.stream != NULL) FW_TRY(summarise_caches(e, &made, error));
    made.verdicts = e->verdicts;
    made.audit_seconds = e->audit_seconds;
    made.audit_seed = e->audit_seed;
    made.seconds = clock_seconds() - e->begin;
    *result = made;
    return FW_OK;
}
