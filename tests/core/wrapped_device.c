#include "wrapped_device.h"

#include "support.h"

#define OPS(X)                                                                                     \
    X(gemm, fw_gemm)                                                                               \
    X(embedding_forward, fw_embedding)                                                             \
    X(embedding_backward, fw_embedding)                                                            \
    X(rmsnorm_forward, fw_rmsnorm)                                                                 \
    X(rmsnorm_backward, fw_rmsnorm)                                                                \
    X(residual_norm_forward, fw_residual_norm)                                                     \
    X(residual_norm_backward, fw_residual_norm)                                                    \
    X(rope_table, fw_rope_table)                                                                   \
    X(qk_norm_rope_forward, fw_qk_norm_rope)                                                       \
    X(qk_norm_rope_backward, fw_qk_norm_rope)                                                      \
    X(attention_forward, fw_flash_attention)                                                       \
    X(attention_backward, fw_flash_attention)                                                      \
    X(activation_forward, fw_activation)                                                           \
    X(activation_backward, fw_activation)                                                          \
    X(cross_entropy_forward, fw_cross_entropy)                                                     \
    X(cross_entropy_backward, fw_cross_entropy)                                                    \
    X(log_softmax, fw_log_softmax)                                                                 \
    X(reduce, fw_reduce)                                                                           \
    X(axpby, fw_axpby)                                                                             \
    X(lerp, fw_lerp)                                                                               \
    X(cast, fw_cast)                                                                               \
    X(clip, fw_clip)                                                                               \
    X(adamw, fw_adamw_step)                                                                        \
    X(momentum, fw_momentum_step)                                                                  \
    X(newton_schulz, fw_newton_schulz)                                                             \
    X(apply_update, fw_apply_update)                                                               \
    X(row_absmax, fw_row_absmax)                                                                   \
    X(fake_quantize, fw_fake_quantize)                                                             \
    X(smear_forward, fw_smear)                                                                     \
    X(smear_backward, fw_smear)                                                                    \
    X(scale_rows_forward, fw_scale_rows)                                                           \
    X(scale_rows_backward, fw_scale_rows)

typedef fw_status play_op(struct wrapped_device *, const void *arguments, fw_error *);

/* One op of a graph, and the one after it. */
struct recorded {
    play_op *play;
    const char *name;
    void *arguments;
    struct recorded *next;
};

/* A copy between pinned memory and the device, whose work is not known to be done yet. */
struct transfer {
    void *to;           /* NULL: it went to the device */
    const void *from;   /* pinned, when it went to the device */
    void *data;         /* what was copied */
    const void *beside; /* device memory that must still hold it; NULL: any may */
    size_t bytes;
    uint64_t position;
    struct transfer *next; /* issued after it */
};

struct pinned {
    char *memory;
    size_t bytes;
    struct pinned *next;
};

static struct wrapped_device *self(fw_device *device) { return (struct wrapped_device *)device; }

static void *copy_of(const void *data, size_t bytes) {
    void *copy = malloc(bytes + 1);
    assert_non_null(copy);
    memcpy(copy, data, bytes);
    return copy;
}

static fw_status may_fail(struct wrapped_device *w, fw_error *error) {
    if (++w->calls != w->fail_at) return FW_OK;
    return fw_fail(error, FW_E_DEVICE, "the device failed at call %lld", (long long)w->calls);
}

/* ---- ops ---- */

static fw_status run(struct wrapped_device *w, play_op *play, const char *name,
                     const void *arguments, fw_error *error) {
    if (w->counting) return FW_OK;
    FW_TRY(play(w, arguments, error));
    if (w->after != NULL) w->after(w, name, arguments);
    return FW_OK;
}

static fw_status issue(fw_device *device, play_op *play, const char *name, const void *arguments,
                       size_t bytes, fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(may_fail(w, error));
    if (w->record == NULL) return run(w, play, name, arguments, error);
    struct recorded *next = calloc(1, sizeof *next);
    assert_non_null(next);
    *next = (struct recorded){play, name, copy_of(arguments, bytes), NULL};
    struct recorded *last = w->record;
    while (last->next != NULL) last = last->next;
    last->next = next;
    return FW_OK;
}

#define DEFINE_OP(name, type)                                                                      \
    static fw_status play_##name(struct wrapped_device *w, const void *arguments,                  \
                                 fw_error *error) {                                                \
        return w->inner->ops->name(w->inner, arguments, error);                                    \
    }                                                                                              \
    static fw_status wrapped_##name(fw_device *device, const type *arguments, fw_error *error) {   \
        return issue(device, play_##name, #name, arguments, sizeof *arguments, error);             \
    }
OPS(DEFINE_OP)

static size_t attention_scratch(fw_device *device, const fw_flash_attention *shapes) {
    struct wrapped_device *w = self(device);
    /* Of the order of what a GPU needs: gradients of query, key and value in float32. */
    if (w->counting) return 3 * (size_t)fw_tensor_count(&shapes->q) * sizeof(float);
    return w->inner->ops->attention_scratch(w->inner, shapes);
}

static size_t newton_schulz_scratch(fw_device *device, const fw_newton_schulz *shapes) {
    return self(device)->inner->ops->newton_schulz_scratch(self(device)->inner, shapes);
}

/* ---- the joined op: what the two ops do ---- */

static size_t linear_activation_saved(fw_device *device, const fw_linear_activation *p) {
    const size_t n = (size_t)fw_tensor_count(&p->out);
    return self(device)->counting ? n / 8 : n * sizeof(float);
}

static fw_activation activation_of(const fw_linear_activation *p, void *hidden) {
    fw_activation activation = {.struct_size = sizeof activation,
                                .kind = p->kind,
                                .slope = p->slope,
                                .x = p->out,
                                .out = p->out,
                                .d_out = p->d_hidden,
                                .d_x = p->d_hidden};
    activation.x.data = hidden;
    return activation;
}

static fw_status play_linear_forward(struct wrapped_device *w, const void *arguments,
                                     fw_error *error) {
    const fw_linear_activation *p = arguments;
    const fw_activation activation = activation_of(p, p->saved != NULL ? p->saved : p->out.data);
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .transpose_b = 1,
                          .alpha = 1,
                          .a = p->x,
                          .b = p->weight,
                          .c = activation.x};
    assert_true(p->saved == NULL ||
                p->saved_bytes >= (size_t)fw_tensor_count(&p->out) * sizeof(float));
    FW_TRY(w->inner->ops->gemm(w->inner, &gemm, error));
    return w->inner->ops->activation_forward(w->inner, &activation, error);
}

static fw_status play_linear_backward(struct wrapped_device *w, const void *arguments,
                                      fw_error *error) {
    const fw_linear_activation *p = arguments;
    const fw_activation activation = activation_of(p, p->saved);
    const fw_gemm gemm = {
        .struct_size = sizeof gemm, .alpha = 1, .a = p->d_y, .b = p->next_weight, .c = p->d_hidden};
    assert_non_null(p->saved);
    FW_TRY(w->inner->ops->gemm(w->inner, &gemm, error));
    return w->inner->ops->activation_backward(w->inner, &activation, error);
}

static fw_status linear_activation_forward(fw_device *device, const fw_linear_activation *p,
                                           fw_error *error) {
    return issue(device, play_linear_forward, "linear_activation_forward", p, sizeof *p, error);
}

static fw_status linear_activation_backward(fw_device *device, const fw_linear_activation *p,
                                            fw_error *error) {
    return issue(device, play_linear_backward, "linear_activation_backward", p, sizeof *p, error);
}

/* ---- transfers ---- */

/* All transfers up to `position` are done. */
static void retire(struct wrapped_device *w, uint64_t position) {
    for (struct transfer **at = &w->transfers; *at != NULL;) {
        struct transfer *t = *at;
        if (t->position > position) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        if (t->to != NULL) memcpy(t->to, t->data, t->bytes);
        if (t->from != NULL && memcmp(t->from, t->data, t->bytes) != 0)
            fail_msg("pinned memory was written again before its copy was waited for");
        if (t->beside != NULL && memcmp(t->beside, t->data, t->bytes) != 0)
            fail_msg("device memory was written again before its copy was waited for");
        free(t->data);
        free(t);
    }
}

/* Behind those before it: memory that was sent for twice has what was sent last. */
static struct transfer *add_transfer(struct wrapped_device *w, void *to, const void *from,
                                     const void *data, size_t bytes) {
    struct transfer *t = calloc(1, sizeof *t), **at = &w->transfers;
    assert_non_null(t);
    *t = (struct transfer){to, from, copy_of(data, bytes), NULL, bytes, ++w->position, NULL};
    while (*at != NULL) at = &(*at)->next;
    *at = t;
    return t;
}

static bool is_pinned(const struct wrapped_device *w, const void *memory, size_t bytes) {
    const char *begin = memory;
    for (const struct pinned *p = w->pinned; p != NULL; p = p->next)
        if (begin >= p->memory && begin + bytes <= p->memory + p->bytes) return true;
    return false;
}

static fw_status allocate(fw_device *device, size_t bytes, void **memory, fw_error *error) {
    struct wrapped_device *w = self(device);
    assert_null(w->record);
    FW_TRY(may_fail(w, error));
    w->live++;
    if (!w->counting) return w->inner->allocate(w->inner, bytes, memory, error);
    if (w->most > 0 && w->allocated + bytes > w->most) {
        w->live--;
        return fw_fail(error, FW_E_MEMORY, "allocate: %zu bytes are free", w->most - w->allocated);
    }
    *memory = (char *)w + w->allocated; /* never looked at */
    w->allocated += (bytes + 255) / 256 * 256;
    return FW_OK;
}

static void release(fw_device *device, void *memory) {
    self(device)->live--;
    if (!self(device)->counting) self(device)->inner->release(self(device)->inner, memory);
}

static fw_status copy_from_host(fw_device *device, void *to, const void *from, size_t bytes,
                                fw_error *error) {
    struct wrapped_device *w = self(device);
    assert_null(w->record);
    FW_TRY(may_fail(w, error));
    if (w->counting) return FW_OK;
    if (is_pinned(w, from, bytes)) (void)add_transfer(w, NULL, from, from, bytes);
    return w->inner->copy_from_host(w->inner, to, from, bytes, error);
}

static fw_status refuse_in_capture(const struct wrapped_device *w, fw_error *error) {
    if (w->record == NULL) return FW_OK;
    return fw_fail(error, FW_E_DEVICE, "nothing that waits may be called while capturing");
}

static fw_status copy_to_host(fw_device *device, void *to, const void *from, size_t bytes,
                              fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(refuse_in_capture(w, error));
    FW_TRY(may_fail(w, error));
    if (w->counting) return FW_OK;
    w->waits++;
    retire(w, w->position);
    return w->inner->copy_to_host(w->inner, to, from, bytes, error);
}

struct copy {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
};

static fw_status play_copy(struct wrapped_device *w, const void *arguments, fw_error *error) {
    const struct copy *copy = arguments;
    if (copy->from == NULL) return w->inner->zero(w->inner, copy->to, copy->bytes, error);
    return w->inner->copy(w->inner, copy->to, copy->from, copy->bytes, error);
}

static fw_status copy_within(fw_device *device, void *to, const void *from, size_t bytes,
                             fw_error *error) {
    const struct copy copy = {to, from, bytes};
    return issue(device, play_copy, "copy", &copy, sizeof copy, error);
}

static fw_status zero(fw_device *device, void *memory, size_t bytes, fw_error *error) {
    const struct copy copy = {memory, NULL, bytes};
    return issue(device, play_copy, "zero", &copy, sizeof copy, error);
}

static fw_status synchronize(fw_device *device, fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(refuse_in_capture(w, error));
    FW_TRY(may_fail(w, error));
    w->waits++;
    retire(w, w->position);
    return FW_OK;
}

static fw_status allocate_host(fw_device *device, size_t bytes, void **memory, fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(may_fail(w, error));
    struct pinned *p = calloc(1, sizeof *p);
    assert_non_null(p);
    *p = (struct pinned){malloc(bytes), bytes, w->pinned};
    assert_non_null(p->memory);
    memset(p->memory, 0xFF, bytes);
    w->pinned = p;
    *memory = p->memory;
    return FW_OK;
}

static void release_host(fw_device *device, void *memory) {
    struct wrapped_device *w = self(device);
    retire(w, w->position);
    for (struct pinned **at = &w->pinned; *at != NULL; at = &(*at)->next)
        if ((*at)->memory == memory) {
            struct pinned *p = *at;
            *at = p->next;
            free(p->memory);
            free(p);
            return;
        }
    fail_msg("release_host of memory that is not allocate_host's");
}

static fw_status copy_to_host_async(fw_device *device, void *to, const void *from, size_t bytes,
                                    fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(may_fail(w, error));
    assert_null(w->record);
    assert_true(is_pinned(w, to, bytes));
    memset(to, 0xFF, bytes); /* not numbers, until they are there */
    (void)add_transfer(w, to, NULL, from, bytes);
    return FW_OK;
}

static fw_status copy_to_host_beside(fw_device *device, void *to, const void *from, size_t bytes,
                                     fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(may_fail(w, error));
    assert_null(w->record);
    assert_true(is_pinned(w, to, bytes));
    memset(to, 0xFF, bytes);
    add_transfer(w, to, NULL, from, bytes)->beside = from;
    return FW_OK;
}

static fw_status fence_create(fw_device *device, void **fence, fw_error *error) {
    FW_TRY(may_fail(self(device), error));
    self(device)->live++;
    *fence = calloc(1, sizeof(uint64_t));
    assert_non_null(*fence);
    return FW_OK;
}

static void fence_destroy(fw_device *device, void *fence) {
    self(device)->live--;
    free(fence);
}

static fw_status fence_record(fw_device *device, void *fence, fw_error *error) {
    FW_TRY(may_fail(self(device), error));
    *(uint64_t *)fence = self(device)->position;
    return FW_OK;
}

static fw_status fence_wait(fw_device *device, void *fence, fw_error *error) {
    FW_TRY(may_fail(self(device), error));
    self(device)->waits++;
    retire(self(device), *(uint64_t *)fence);
    return FW_OK;
}

/* ---- graphs ---- */

static fw_status capture_begin(fw_device *device, fw_error *error) {
    FW_TRY(may_fail(self(device), error));
    assert_null(self(device)->record);
    self(device)->live++;
    self(device)->record = calloc(1, sizeof *self(device)->record); /* a head, then the ops */
    assert_non_null(self(device)->record);
    return FW_OK;
}

static fw_status capture_refused(fw_device *device, fw_error *error) {
    self(device)->refusals++;
    return fw_fail(error, FW_E_UNSUPPORTED, "this device captures nothing");
}

static void graph_destroy(fw_device *device, void *graph) {
    self(device)->live--;
    for (struct recorded *r = graph, *next; r != NULL; r = next) {
        next = r->next;
        free(r->arguments);
        free(r);
    }
}

static fw_status capture_end(fw_device *device, void **graph, fw_error *error) {
    *graph = self(device)->record;
    self(device)->record = NULL;
    return may_fail(self(device), error);
}

static fw_status capture_broken(fw_device *device, void **graph, fw_error *error) {
    graph_destroy(device, self(device)->record);
    self(device)->record = NULL;
    self(device)->refusals++;
    *graph = NULL;
    return fw_fail(error, FW_E_DEVICE, "something waited");
}

static fw_status graph_launch(fw_device *device, void *graph, fw_error *error) {
    struct wrapped_device *w = self(device);
    FW_TRY(may_fail(w, error));
    w->launches++;
    for (const struct recorded *r = ((struct recorded *)graph)->next; r != NULL; r = r->next)
        FW_TRY(run(w, r->play, r->name, r->arguments, error));
    return FW_OK;
}

/* ---- the table ---- */

static void add_features(struct wrapped_device *w, unsigned features) {
    if (features & WRAP_LINEAR_ACTIVATION) {
        w->ops.linear_activation_saved = linear_activation_saved;
        w->ops.linear_activation_forward = linear_activation_forward;
        w->ops.linear_activation_backward = linear_activation_backward;
    }
    if (features & WRAP_PINNED) {
        w->device.allocate_host = allocate_host;
        w->device.release_host = release_host;
        w->device.copy_to_host_async = copy_to_host_async;
        if (features & WRAP_BESIDE) w->device.copy_to_host_beside = copy_to_host_beside;
        w->device.fence_create = fence_create;
        w->device.fence_destroy = fence_destroy;
        w->device.fence_record = fence_record;
        w->device.fence_wait = fence_wait;
    }
    if ((features & (WRAP_CAPTURE | WRAP_CAPTURE_REFUSED | WRAP_CAPTURE_BROKEN)) == 0) return;
    w->device.capture_begin = features & WRAP_CAPTURE_REFUSED ? capture_refused : capture_begin;
    w->device.capture_end = features & WRAP_CAPTURE_BROKEN ? capture_broken : capture_end;
    w->device.graph_launch = graph_launch;
    w->device.graph_destroy = graph_destroy;
}

void wrapped_device_open(struct wrapped_device *w, const fw_host *host, unsigned features) {
    const bool counting = (features & WRAP_COUNTING) != 0;
    fw_device *inner = host->device;
    *w = (struct wrapped_device){.inner = inner, .services = *host, .counting = counting};
    w->services.device = &w->device;
    w->ops = (fw_ops){.struct_size = sizeof w->ops,
                      .attention_scratch = attention_scratch,
                      .newton_schulz_scratch = newton_schulz_scratch};
#define ENTER_OP(name, type) w->ops.name = wrapped_##name;
    OPS(ENTER_OP)
    w->device = (fw_device){.struct_size = sizeof w->device,
                            .type = inner->type,
                            .self = inner->self,
                            .compute_dtype = counting ? FW_BF16 : inner->compute_dtype,
                            .allocate = allocate,
                            .release = release,
                            .copy_from_host = copy_from_host,
                            .copy_to_host = copy_to_host,
                            .copy = copy_within,
                            .zero = zero,
                            .synchronize = synchronize,
                            .ops = &w->ops};
    add_features(w, features);
}

void wrapped_device_close(struct wrapped_device *w) {
    retire(w, w->position);
    assert_null(w->pinned);
    assert_null(w->record);
    assert_int_equal(w->live, 0);
}
