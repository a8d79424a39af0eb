#include "model_case.h"

#include <stdlib.h>
#include <string.h>

/* ---- the INI text ---- */

static const char *yes(int64_t flag) { return flag ? "yes" : "no"; }

static int layer_list(const struct shape *s, char *out, size_t size) {
    int used = 0;
    out[0] = '\0';
    for (int64_t i = 0; i < s->n_ve && used >= 0 && (size_t)used < size; i++)
        used += snprintf(out + used, size - (size_t)used, "%s%lld", i > 0 ? "," : "",
                         (long long)s->ve_layer[i]);
    return used;
}

/* One step of the record's schedule at momentum 0.95; its first. */
static const char optimizers[] =
    "[optimizer.matrix]\nplugin = muon\nlearning_rate = 0.025\nmomentum = 0.95\n"
    "momentum_warmup_steps = 0\nnesterov = yes\niterations = 5\nweight_decay = 0.04\n"
    "[optimizer.embed]\nplugin = adamw\nlearning_rate = 0.035\nbeta1 = 0.9\nbeta2 = 0.95\n"
    "epsilon = 1e-8\nweight_decay = 0.04\n"
    "[optimizer.scalar]\nplugin = adamw\nlearning_rate = 0.025\nbeta1 = 0.9\nbeta2 = 0.95\n"
    "epsilon = 1e-8\nweight_decay = 0.04\n";

static void write_ini(const struct shape *s, const char *device, char *ini, size_t size) {
    char layers[2048], tables[512] = "";
    (void)layer_list(s, layers, sizeof layers);
    if (s->bigram_slots > 0)
        (void)snprintf(tables, sizeof tables, "bigram_slots = %lld\nbigram_width = %lld\n",
                       (long long)s->bigram_slots, (long long)s->bigram_dim);
    if (s->n_ve > 0)
        (void)snprintf(tables + strlen(tables), sizeof tables - strlen(tables),
                       "value_width = %lld\n", (long long)s->ve_dim);
    int used =
        snprintf(ini, size,
                 "[run]\ndevice = %s\nsteps = 1\nbatch_tokens = %lld\n[data]\nsequence = %lld\n"
                 "[eval]\nmode = plain\nstride = 1\n[model]\n"
                 "layers = %lld\n"
                 "width = %lld\nmlp_width = %lld\nsoftcap = 30\nsmear = %s\nx0_mix = %s\n"
                 "skips = %s\nlayer_scales = %s\ndepth_norm = %s\nvalue_layers = %s\n%s",
                 device, (long long)(s->batch * s->seq), (long long)s->seq, (long long)s->layers,
                 (long long)s->dim, (long long)s->mlp_width, yes(s->smear), yes(s->x0_mix),
                 yes(shape_skips(s) > 0), yes(s->layer_scales), yes(s->depth_norm), layers, tables);
    used += snprintf(ini + used, size - (size_t)used,
                     "[attention]\nplugin = %s\nheads = %lld\nkv_heads = %lld\nrope_dims = %lld\n",
                     s->xsa > 0 ? "xsa" : "gqa", (long long)s->heads, (long long)s->kv,
                     (long long)s->rope_dims);
    if (s->xsa > 0)
        used +=
            snprintf(ini + used, size - (size_t)used, "last_layers = %lld\n", (long long)s->xsa);
    (void)snprintf(ini + used, size - (size_t)used, "%s", optimizers);
}

/* ---- opening ---- */

static fw_status read_tokens(struct model_case *m, const char *name, int32_t **tokens,
                             fw_error *error) {
    const int64_t n = m->shape.batch * m->shape.seq;
    const struct array *array = folder_take(m->folder, name);
    if (array == NULL || array->count != n || (array->dtype != FW_I32 && array->dtype != FW_I64))
        return fw_fail(error, FW_E_SHAPE, "%s/manifest.txt: %s should be %lld x %lld tokens in i32",
                       m->folder->path, name, (long long)m->shape.batch, (long long)m->shape.seq);
    *tokens = calloc((size_t)n, sizeof **tokens);
    if (*tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for tokens");
    for (int64_t i = 0; i < n; i++) {
        const double token = array_value(array, i);
        if (token < 0 || token >= (double)m->shape.vocab)
            return fw_fail(error, FW_E_RANGE, "%s: %s holds the token %.0f of a vocabulary of %lld",
                           m->folder->path, name, token, (long long)m->shape.vocab);
        (*tokens)[i] = (int32_t)token;
    }
    return FW_OK;
}

/* Each recorded parameter must be given to weights whole, so that none is left out unnoticed. */
static fw_status check_cover(const struct model_case *m, fw_error *error) {
    for (size_t i = 0; i < m->folder->n_arrays; i++) {
        const struct array *array = &m->folder->arrays[i];
        if (strncmp(array->name, "param/", 6) != 0) continue;
        int64_t covered = 0;
        for (uint32_t j = 0; j < model_n_weights(m->model); j++)
            if (strcmp(m->places[j].name, array->name + 6) == 0) covered += m->places[j].count;
        if (covered != array->count)
            return fw_fail(
                error, FW_E_SHAPE, "%s: %s has %lld values; the model's weights take %lld of them",
                m->folder->path, array->name, (long long)array->count, (long long)covered);
    }
    return FW_OK;
}

static fw_status find_places(struct model_case *m, fw_error *error) {
    const uint32_t n = model_n_weights(m->model);
    m->places = calloc(n, sizeof *m->places);
    if (m->places == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a list of weights");
    for (uint32_t i = 0; i < n; i++)
        FW_TRY(place_of(&m->shape, model_weight(m->model, i), &m->places[i], error));
    return check_cover(m, error);
}

static fw_status open_all(struct model_case *m, const struct case_options *options,
                          fw_error *error) {
    char path[sizeof m->folder->path + 16], ini[8192];
    (void)snprintf(path, sizeof path, "%s/config.txt", m->folder->path);
    if (m->folder->config == NULL)
        return fw_fail(error, FW_E_IO, "%s is missing: it has the model's shape", path);
    FW_TRY(shape_parse(path, m->folder->config, &m->shape, error));
    FW_TRY(read_tokens(m, "input_ids", &m->inputs, error));
    FW_TRY(read_tokens(m, "target_ids", &m->targets, error));
    write_ini(&m->shape, options->device, ini, sizeof ini);
    const uint32_t kinds =
        CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) | CONFIG_BIND(FW_OPTIMIZER);
    FW_TRY(session_open(options->arguments, path, ini, kinds, &m->session, error));
    m->exact = m->session.services->device->compute_dtype == FW_F32;
    const struct model_options model = {.experiment = m->session.experiment,
                                        .host = m->session.services,
                                        .vocabulary = (uint32_t)m->shape.vocab,
                                        .batch = m->shape.batch,
                                        .tokens = m->shape.seq,
                                        .training = true};
    FW_TRY(model_create(&model, &m->model, error));
    return find_places(m, error);
}

fw_status model_case_open(struct folder *folder, const struct case_options *options,
                          struct model_case *model_case, fw_error *error) {
    *model_case = (struct model_case){.folder = folder};
    const fw_status status = open_all(model_case, options, error);
    if (status != FW_OK) model_case_close(model_case);
    return status;
}

void model_case_close(struct model_case *m) {
    model_destroy(m->model);
    if (m->session.registry != NULL) session_close(&m->session);
    free(m->places);
    free(m->inputs);
    free(m->targets);
    *m = (struct model_case){0};
}

/* ---- arenas ---- */

static float *new_arena(const struct model_case *m, fw_error *error) {
    float *arena = calloc((size_t)model_arena_count(m->model), sizeof *arena);
    if (arena == NULL) (void)fw_fail(error, FW_E_MEMORY, "no memory for the model's weights");
    return arena;
}

/* Rows and columns of the weight are the last dimensions of what was recorded. */
static fw_status check_array(const struct model_case *m, uint32_t index, const char *name,
                             const struct array *array, fw_error *error) {
    const struct place *place = &m->places[index];
    const fw_weight *weight = model_weight(m->model, index);
    const int64_t columns = array->rank > 0 ? array->shape[array->rank - 1] : 1;
    const bool fits = weight->rank < 2 || columns == weight->shape[1];
    if (array->dtype == FW_F32 && fits && place->offset + place->count <= array->count)
        return FW_OK;
    return fw_fail(error, FW_E_SHAPE,
                   "%s: %s does not fit the weight %s of %lld x %lld values in float32",
                   m->folder->path, name, weight->name, (long long)weight->shape[0],
                   (long long)weight->shape[1]);
}

static fw_status fill(struct model_case *m, const char *group, float *arena, fw_error *error) {
    for (uint32_t i = 0; i < model_n_weights(m->model); i++) {
        const struct place *place = &m->places[i];
        char name[96];
        (void)snprintf(name, sizeof name, "%.20s/%s", group, place->name);
        const struct array *array = folder_take(m->folder, name);
        if (array == NULL)
            return fw_fail(error, FW_E_NOT_FOUND, "%s: %s, for the weight %s, is missing",
                           m->folder->path, name, model_weight(m->model, i)->name);
        FW_TRY(check_array(m, i, name, array, error));
        memcpy(arena + model_offset(m->model, i),
               (const char *)array->data + (size_t)place->offset * sizeof(float),
               (size_t)place->count * sizeof(float));
    }
    return FW_OK;
}

fw_status model_case_recorded(struct model_case *m, const char *group, float **arena,
                              fw_error *error) {
    float *values = new_arena(m, error);
    if (values == NULL) return FW_E_MEMORY;
    const fw_status status = fill(m, group, values, error);
    if (status == FW_OK)
        *arena = values;
    else
        free(values);
    return status;
}

fw_status model_case_download(const struct model_case *m, const float *device_arena, float **arena,
                              fw_error *error) {
    float *values = new_arena(m, error);
    if (values == NULL) return FW_E_MEMORY;
    const fw_status status = model_download(m->model, device_arena, values, error);
    if (status == FW_OK)
        *arena = values;
    else
        free(values);
    return status;
}

fw_status model_case_loss(struct model_case *m, double *loss, fw_error *error) {
    const double rows = (double)(m->shape.batch * m->shape.seq);
    const struct model_batch batch = {m->inputs, m->targets, m->shape.batch, m->shape.seq};
    double nats = 0;
    FW_TRY(model_train_pass(m->model, &batch, (float)(1 / rows), false, error));
    FW_TRY(model_read_loss(m->model, &nats, error));
    *loss = nats / rows;
    return FW_OK;
}
