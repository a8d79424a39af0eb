/* See conform_layer.h. */
#include "conform_layer.h"

#include <math.h>

size_t weight_count(const fw_weight *weight) {
    return (size_t)(weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3]);
}

layer open_layer(const conform *c) {
    const fw_attention_shape shape = {.struct_size = sizeof shape,
                                      .layer = 1,
                                      .layers = 2,
                                      .width = WIDTH,
                                      .max_batch = MAX_BATCH,
                                      .max_tokens = MAX_TOKENS,
                                      .rope_reference = MAX_TOKENS};
    fw_error error = {.struct_size = sizeof error};
    layer l = {.c = c, .vtable = c->plugin->vtable};
    conform_ok(l.vtable->create(c->host, c->values, &shape, &l.self, &error), &error);
    l.n = l.vtable->n_weights(l.self);
    assert_in_range(l.n, 1, MAX_WEIGHTS);
    for (uint32_t i = 0; i < l.n; i++) {
        fw_weight *weight = &l.weights[i];
        weight->struct_size = sizeof *weight;
        l.vtable->weight(l.self, i, weight);
        const double deviation =
            weight->role == FW_ROLE_MATRIX ? 1 / sqrt((double)weight->shape[1]) : 0.2;
        l.values[i] = conform_normals(100 + i, weight_count(weight), deviation);
        if (weight->init != FW_INIT_CONSTANT) continue;
        for (size_t j = 0; j < weight_count(weight); j++)
            l.values[i][j] += (float)weight->init_value;
    }
    fw_attention_plan plan = {.struct_size = sizeof plan};
    conform_ok(l.vtable->plan(l.self, FW_INFER, 1, 1, &plan, &error), &error);
    l.value_width = plan.value_width;
    l.output_weight = plan.output_weight;
    return l;
}

void close_layer(layer *l) {
    for (uint32_t i = 0; i < l->n; i++) free(l->values[i]);
    l->vtable->destroy(l->self);
}

void free_outcome(outcome *o) {
    free(o->output);
    free(o->d_input);
    free(o->d_value_add);
    for (size_t i = 0; i < MAX_WEIGHTS; i++) free(o->grads[i]);
}

/* Tensors for weights or their gradients, those of a pack group side by side. */
static void take_weights(const layer *l, bool grads, fw_tensor *tensors) {
    for (uint32_t first = 0, next; first < l->n; first = next) {
        const uint32_t group = l->weights[first].pack_group;
        const bool matrix = l->weights[first].role == FW_ROLE_MATRIX;
        const uint32_t dtype = grads || !matrix ? (uint32_t)FW_F32 : l->c->device->compute_dtype;
        size_t count = 0;
        for (next = first; next < l->n; next++) {
            if (next > first && (group == 0 || l->weights[next].pack_group != group)) break;
            count += weight_count(&l->weights[next]);
        }
        char *memory = conform_take(l->c, count * fw_dtype_size(dtype));
        for (uint32_t i = first; i < next; i++) {
            const int64_t *s = l->weights[i].shape;
            tensors[i] = fw_tensor_view(memory, dtype, l->weights[i].rank, s[0], s[1], s[2], s[3]);
            memory += weight_count(&l->weights[i]) * fw_dtype_size(dtype);
        }
    }
}

static fw_tensor upload(const layer *l, const float *values, int64_t rows, int64_t columns) {
    const fw_tensor tensor = conform_tensor(l->c, l->c->device->compute_dtype, 2, rows, columns);
    if (values != NULL) conform_write(l->c, &tensor, values);
    return tensor;
}

static fw_tensor upload_documents(const layer *l, const pass *p) {
    if (p->documents == NULL) return fw_absent();
    const int64_t columns = p->n_documents + 1;
    const size_t bytes = (size_t)(p->batch * columns) * sizeof(int32_t);
    fw_error error = {.struct_size = sizeof error};
    void *memory = conform_take(l->c, bytes);
    conform_ok(l->c->device->copy_from_host(l->c->device, memory, p->documents, bytes, &error),
               &error);
    return fw_matrix(memory, FW_I32, p->batch, columns);
}

static void take_gradients(const layer *l, const pass *p, stage *s) {
    const int64_t rows = p->batch * p->tokens;
    take_weights(l, true, s->grads);
    for (uint32_t i = 0; p->accumulate && i < l->n; i++) {
        const size_t n = weight_count(&l->weights[i]);
        float *before = conform_floats(n);
        for (size_t j = 0; j < n; j++) before[j] = GRAD_BEFORE;
        conform_write(l->c, &s->grads[i], before);
        free(before);
    }
    s->call.accumulate = p->accumulate;
    s->call.d_output = upload(l, p->d_output, rows, WIDTH);
    s->call.d_input = upload(l, NULL, rows, WIDTH);
    if (p->value_add != NULL) s->call.d_value_add = upload(l, NULL, rows, l->value_width);
}

void prepare(const layer *l, const pass *p, stage *s) {
    const int64_t rows = p->batch * p->tokens;
    fw_attention_plan plan = {.struct_size = sizeof plan};
    fw_error error = {.struct_size = sizeof error};
    conform_ok(l->vtable->plan(l->self, p->phase, p->batch, p->tokens, &plan, &error), &error);
    take_weights(l, false, s->weights);
    for (uint32_t i = 0; i < l->n; i++) conform_write(l->c, &s->weights[i], l->values[i]);
    s->call = (fw_attention_call){
        .struct_size = sizeof s->call,
        .phase = p->phase,
        .batch = p->batch,
        .tokens = p->tokens,
        .position_offset = p->offset,
        .window = p->window,
        .n_weights = l->n,
        .weights = s->weights,
        .input = upload(l, p->input, rows, WIDTH),
        .output = upload(l, NULL, rows, WIDTH),
        .value_add =
            p->value_add == NULL ? fw_absent() : upload(l, p->value_add, rows, l->value_width),
        .d_output = fw_absent(),
        .d_input = fw_absent(),
        .d_value_add = fw_absent(),
        .cu_seqlens = upload_documents(l, p),
        .residual = p->residual == NULL ? fw_absent() : upload(l, p->residual, rows, WIDTH),
        .saved = plan.saved_bytes > 0 ? conform_take(l->c, plan.saved_bytes) : NULL,
        .scratch = plan.scratch_bytes > 0 ? conform_take(l->c, plan.scratch_bytes) : NULL,
        .observe = p->observe};
    if (p->d_output != NULL) take_gradients(l, p, s);
}

static float *download(const layer *l, const fw_tensor *tensor) {
    float *values = conform_floats((size_t)fw_tensor_count(tensor));
    conform_read(l->c, tensor, values);
    return values;
}

outcome run(const layer *l, const pass *p) {
    const size_t mark = conform_mark();
    fw_error error = {.struct_size = sizeof error};
    outcome o = {0};
    stage s;
    prepare(l, p, &s);
    conform_ok(l->vtable->forward(l->self, &s.call, &error), &error);
    o.output = download(l, &s.call.output);
    if (p->d_output != NULL) {
        s.call.grads = s.grads;
        conform_ok(l->vtable->backward(l->self, &s.call, &error), &error);
        o.d_input = download(l, &s.call.d_input);
        for (uint32_t i = 0; i < l->n; i++) o.grads[i] = download(l, &s.grads[i]);
        if (p->value_add != NULL) o.d_value_add = download(l, &s.call.d_value_add);
    }
    conform_release(mark);
    return o;
}
