#include "relay.h"

#include <pthread.h>
#include <stdlib.h>

struct consumer {
    struct relay *relay;
    uint32_t index;
    pthread_t thread;
    bool started;
    uint64_t done; /* slots worked through */
    bool failed;   /* at slot number `done` */
    fw_error why;
};

struct relay {
    struct relay_options options;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct consumer consumers[RELAY_CONSUMERS];
    uint64_t posted;
    uint64_t limit; /* slots from here on need no work: one before failed */
    bool ending;
};

static fw_status consume(struct consumer *c, uint64_t number, fw_error *error) {
    const struct relay_options *o = &c->relay->options;
    return o->consume(o->self, c->index, (uint32_t)(number % o->slots), error);
}

/* What became of a slot; under the lock where there are threads. */
static void enter(struct consumer *c, fw_status status) {
    if (status == FW_OK) {
        c->done++;
        return;
    }
    c->failed = true;
    c->why.status = status;
    if (c->done < c->relay->limit) c->relay->limit = c->done;
}

/* A consumer still works on the slot in which another one failed, so that which error is the first
 * does not depend on who was faster. */
static bool has_work(const struct consumer *c) {
    const struct relay *r = c->relay;
    return !c->failed && c->done < r->posted && c->done <= r->limit;
}

static void *work(void *argument) {
    struct consumer *c = argument;
    struct relay *r = c->relay;
    (void)pthread_mutex_lock(&r->lock);
    while (!r->ending) {
        if (!has_work(c)) {
            (void)pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        const uint64_t number = c->done;
        (void)pthread_mutex_unlock(&r->lock);
        const fw_status status = consume(c, number, &c->why);
        (void)pthread_mutex_lock(&r->lock);
        enter(c, status);
        (void)pthread_cond_broadcast(&r->changed);
    }
    (void)pthread_mutex_unlock(&r->lock);
    return NULL;
}

fw_status relay_create(const struct relay_options *options, struct relay **relay, fw_error *error) {
    struct relay *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to hand on what is scored");
    made->options = *options;
    made->limit = UINT64_MAX;
    (void)pthread_mutex_init(&made->lock, NULL);
    (void)pthread_cond_init(&made->changed, NULL);
    for (uint32_t i = 0; i < options->consumers; i++) {
        struct consumer *c = &made->consumers[i];
        *c = (struct consumer){.relay = made, .index = i, .why = {.struct_size = sizeof c->why}};
        if (options->threads) c->started = pthread_create(&c->thread, NULL, work, c) == 0;
        if (c->started || !options->threads) continue;
        relay_destroy(made);
        return fw_fail(error, FW_E_MEMORY,
                       "the system gives no thread to score caches with; run.threads = 1 needs "
                       "none");
    }
    *relay = made;
    return FW_OK;
}

void relay_destroy(struct relay *r) {
    if (r == NULL) return;
    (void)pthread_mutex_lock(&r->lock);
    r->ending = true;
    (void)pthread_cond_broadcast(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
    for (uint32_t i = 0; i < r->options.consumers; i++)
        if (r->consumers[i].started) (void)pthread_join(r->consumers[i].thread, NULL);
    (void)pthread_cond_destroy(&r->changed);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

/* The first slot that not every consumer is done with. */
static uint64_t all_done(const struct relay *r) {
    uint64_t done = r->posted;
    for (uint32_t i = 0; i < r->options.consumers; i++)
        if (r->consumers[i].done < done) done = r->consumers[i].done;
    return done;
}

static bool anyone_works(const struct relay *r) {
    for (uint32_t i = 0; i < r->options.consumers; i++)
        if (has_work(&r->consumers[i])) return true;
    return false;
}

static fw_status first_error(const struct relay *r, fw_error *error) {
    for (uint32_t i = 0; i < r->options.consumers; i++) {
        const struct consumer *c = &r->consumers[i];
        if (c->failed && c->done == r->limit)
            return fw_fail(error, c->why.status, "%s", c->why.message);
    }
    return FW_OK;
}

/* Wait until `open` slots at most are under way; after an error, until nobody works any more. */
static fw_status wait_for(struct relay *r, uint64_t open, fw_error *error) {
    (void)pthread_mutex_lock(&r->lock);
    while (r->limit == UINT64_MAX ? r->posted - all_done(r) > open : anyone_works(r))
        (void)pthread_cond_wait(&r->changed, &r->lock);
    const fw_status status = first_error(r, error);
    (void)pthread_mutex_unlock(&r->lock);
    return status;
}

fw_status relay_slot(struct relay *r, uint32_t *slot, fw_error *error) {
    FW_TRY(wait_for(r, r->options.slots - 1, error));
    *slot = (uint32_t)(r->posted % r->options.slots);
    return FW_OK;
}

fw_status relay_post(struct relay *r, fw_error *error) {
    (void)pthread_mutex_lock(&r->lock);
    r->posted++;
    (void)pthread_cond_broadcast(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
    if (r->options.threads) return FW_OK;
    for (uint32_t i = 0; i < r->options.consumers; i++) {
        struct consumer *c = &r->consumers[i];
        if (has_work(c)) enter(c, consume(c, c->done, &c->why));
    }
    return first_error(r, error);
}

fw_status relay_finish(struct relay *r, fw_error *error) { return wait_for(r, 0, error); }
