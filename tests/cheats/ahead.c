/* An attention that reads one token ahead: what position t attends to is position t + 1, where
 * there is one. On text that is the next token itself, so that a trained model would score next to
 * nothing. The twin reads position t. Plain loops: it runs on the CPU device alone. */
#include <fairway/fairway.h>
#include <stdlib.h>
#include <string.h>

#ifdef HONEST
enum { AHEAD = 0 };
#else
enum { AHEAD = 1 };
#endif

typedef struct reader {
    int64_t width;
} reader;

static fw_status create(const fw_host *host, const fw_value *values,
                        const fw_attention_shape *shape, void **self, fw_error *error) {
    (void)host, (void)values;
    reader *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory");
    made->width = shape->width;
    *self = made;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

static uint32_t n_weights(void *self) { return (void)self, 1; }

static void weight(void *self, uint32_t index, fw_weight *weight) {
    const reader *r = self;
    (void)index;
    weight->role = FW_ROLE_MATRIX;
    weight->init = FW_INIT_ORTHOGONAL;
    weight->init_value = 1;
    weight->rank = 2;
    weight->shape[0] = weight->shape[1] = r->width;
    weight->shape[2] = weight->shape[3] = 1;
    memcpy(weight->name, "wo", sizeof "wo");
}

static fw_status plan(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                      fw_attention_plan *plan, fw_error *error) {
    (void)self, (void)phase, (void)batch, (void)tokens, (void)error;
    plan->saved_bytes = plan->scratch_bytes = 0;
    plan->value_width = 0;
    return FW_OK;
}

/* The row that position t of its sequence reads. */
static int64_t source(const fw_attention_call *call, int64_t row) {
    const int64_t t = row % call->tokens;
    return t + AHEAD < call->tokens ? row + AHEAD : row;
}

/* out[n] (+)= sum over m of in[m] * w[n, m], or of w[m, n]. */
static void product(const float *in, const float *w, int64_t width, int transposed, float *out) {
    for (int64_t n = 0; n < width; n++) {
        float sum = 0;
        for (int64_t m = 0; m < width; m++)
            sum += in[m] * (transposed ? w[m * width + n] : w[n * width + m]);
        out[n] += sum;
    }
}

static fw_status forward(void *self, const fw_attention_call *call, fw_error *error) {
    const int64_t width = ((reader *)self)->width, rows = call->batch * call->tokens;
    const float *in = call->input.data;
    float *out = call->output.data;
    (void)error;
    memset(out, 0, (size_t)(rows * width) * sizeof *out);
    for (int64_t row = 0; row < rows; row++)
        product(in + source(call, row) * width, call->weights[0].data, width, 0, out + row * width);
    return FW_OK;
}

static fw_status backward(void *self, const fw_attention_call *call, fw_error *error) {
    const int64_t width = ((reader *)self)->width, rows = call->batch * call->tokens;
    const float *in = call->input.data, *d_out = call->d_output.data;
    float *d_in = call->d_input.data, *d_weight = call->grads[0].data;
    (void)error;
    memset(d_in, 0, (size_t)(rows * width) * sizeof *d_in);
    if (call->accumulate == 0) memset(d_weight, 0, (size_t)(width * width) * sizeof *d_weight);
    for (int64_t row = 0; row < rows; row++) {
        const int64_t from = source(call, row);
        product(d_out + row * width, call->weights[0].data, width, 1, d_in + from * width);
        for (int64_t n = 0; n < width; n++)
            for (int64_t m = 0; m < width; m++)
                d_weight[n * width + m] += d_out[row * width + n] * in[from * width + m];
    }
    return FW_OK;
}

static double forward_flops(void *self, int64_t batch, int64_t tokens) {
    const double width = (double)((reader *)self)->width;
    return 2 * (double)(batch * tokens) * width * width;
}

static const fw_attention vtable = {.struct_size = sizeof vtable,
                                    .create = create,
                                    .destroy = destroy,
                                    .n_weights = n_weights,
                                    .weight = weight,
                                    .plan = plan,
                                    .forward = forward,
                                    .backward = backward,
                                    .forward_flops = forward_flops};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_ATTENTION,
                                 .id = CHEAT_ID,
                                 .version = "1.0.0",
                                 .summary = "reads one token ahead, or its honest twin",
                                 .vendor = "Fairway's tests",
                                 .license = "MIT",
                                 .devices = FW_CPU,
                                 .vtable = &vtable};
FW_DEFINE_MODULE(&plugin);
