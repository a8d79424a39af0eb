/* The CPU device plugin: what the machine is, one device per process's cores, and the table of ops.
 */
#include "cpu.h"

#include <fairway/plugin.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const fw_ops ops = {.struct_size = sizeof(fw_ops),
                           .gemm = cpu_gemm,
                           .embedding_forward = cpu_embedding_forward,
                           .embedding_backward = cpu_embedding_backward,
                           .rmsnorm_forward = cpu_rmsnorm_forward,
                           .rmsnorm_backward = cpu_rmsnorm_backward,
                           .residual_norm_forward = cpu_residual_norm_forward,
                           .residual_norm_backward = cpu_residual_norm_backward,
                           .rope_table = cpu_rope_table,
                           .qk_norm_rope_forward = cpu_qk_norm_rope_forward,
                           .qk_norm_rope_backward = cpu_qk_norm_rope_backward,
                           .attention_scratch = cpu_attention_scratch,
                           .attention_forward = cpu_attention_forward,
                           .attention_backward = cpu_attention_backward,
                           .activation_forward = cpu_activation_forward,
                           .activation_backward = cpu_activation_backward,
                           .cross_entropy_forward = cpu_cross_entropy_forward,
                           .cross_entropy_backward = cpu_cross_entropy_backward,
                           .log_softmax = cpu_log_softmax,
                           .reduce = cpu_reduce,
                           .axpby = cpu_axpby,
                           .lerp = cpu_lerp,
                           .cast = cpu_cast,
                           .clip = cpu_clip,
                           .adamw = cpu_adamw,
                           .momentum = cpu_momentum,
                           .newton_schulz_scratch = cpu_newton_schulz_scratch,
                           .newton_schulz = cpu_newton_schulz,
                           .apply_update = cpu_apply_update,
                           .row_absmax = cpu_row_absmax,
                           .fake_quantize = cpu_fake_quantize,
                           .smear_forward = cpu_smear_forward,
                           .smear_backward = cpu_smear_backward,
                           .scale_rows_forward = cpu_scale_rows_forward,
                           .scale_rows_backward = cpu_scale_rows_backward};

static fw_status count(uint32_t *n, fw_error *error) {
    if (n == NULL) return fw_fail(error, FW_E_ARGUMENT, "cpu: count is NULL");
    *n = 1;
    return FW_OK;
}

/* The processor's name as /proc/cpuinfo gives it; "CPU" where there is none. */
static void processor_name(char *name, size_t size) {
    (void)snprintf(name, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL) return;
    char line[512];
    while (fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        const char *text = colon + 1 + strspn(colon + 1, " ");
        (void)snprintf(name, size, "%.*s", (int)strcspn(text, "\n"), text);
        break;
    }
    (void)fclose(file);
}

static fw_status check_ordinal(int32_t ordinal, fw_error *error) {
    if (ordinal == 0) return FW_OK;
    return fw_fail(error, FW_E_NOT_FOUND, "cpu: there is no device %d, only 0", ordinal);
}

static fw_status describe(int32_t ordinal, fw_device_info *info, fw_error *error) {
    FW_TRY(check_ordinal(ordinal, error));
    if (info == NULL || info->struct_size < sizeof *info)
        return fw_fail(error, FW_E_ARGUMENT, "cpu: describe needs info with its struct_size set");
    char name[96];
    processor_name(name, sizeof name);
    info->type = FW_CPU;
    info->ordinal = 0;
    info->threads = (uint32_t)omp_get_max_threads();
    info->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    (void)snprintf(info->name, sizeof info->name, "%s (%u threads)", name, info->threads);
    cpu_gemm_describe(info->libraries, sizeof info->libraries);
    return FW_OK;
}

static void destroy(fw_device *device) {
    if (device == NULL) return;
    cpu_device *cpu = (cpu_device *)device->self;
    free(cpu->workspace);
    free(cpu);
}

static fw_device table(cpu_device *cpu) {
    return (fw_device){.struct_size = sizeof(fw_device),
                       .type = FW_CPU,
                       .compute_dtype = FW_F32,
                       .self = cpu,
                       .allocate = cpu_allocate,
                       .release = cpu_release,
                       .copy_from_host = cpu_copy,
                       .copy_to_host = cpu_copy,
                       .copy = cpu_copy,
                       .zero = cpu_zero,
                       .synchronize = cpu_synchronize,
                       .ops = &ops};
}

static fw_status create(const fw_host *host, const fw_value *values, int32_t ordinal,
                        fw_device **device, fw_error *error) {
    (void)host;
    FW_TRY(check_ordinal(ordinal, error));
    if (values == NULL || device == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "cpu: create needs values and a place for the device");
    cpu_device *cpu = (cpu_device *)calloc(1, sizeof *cpu);
    if (cpu == NULL) return fw_fail(error, FW_E_MEMORY, "cpu: no memory for the device");
    cpu->threads = values[0].integer > 0 ? (int)values[0].integer : omp_get_max_threads();
    const size_t bytes = CPU_WORKSPACE_BYTES * (size_t)cpu->threads;
    cpu->workspace = (char *)aligned_alloc(64, bytes);
    if (cpu->workspace == NULL) {
        free(cpu);
        return fw_fail(error, FW_E_MEMORY, "cpu: no memory for %zu bytes of workspace", bytes);
    }
    cpu_gemm_configure();
    cpu->base = table(cpu);
    *device = &cpu->base;
    return FW_OK;
}

static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_INT, "threads", "0", 0, 1024, "threads",
                   "threads that the ops use, 0 for all cores"),
};

static const fw_device_driver driver = {.struct_size = sizeof(fw_device_driver),
                                        .count = count,
                                        .describe = describe,
                                        .create = create,
                                        .destroy = destroy};

static const fw_plugin cpu = {.struct_size = sizeof(fw_plugin),
                              .kind = FW_DEVICE,
                              .id = "cpu",
                              .version = "1.0.0",
                              .summary = "float32 on the processor: OpenBLAS, OpenMP, SIMD",
                              .vendor = "Fairway",
                              .license = "MIT",
                              .devices = FW_CPU,
                              .n_params = sizeof params / sizeof params[0],
                              .params = params,
                              .vtable = &driver};

FW_DEFINE_MODULE(&cpu);
