/* The CUDA device plugin: which GPUs there are, one device per GPU, and the table of ops. */
#include "cuda_device.h"

#include <fairway/plugin.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

enum { SYNCHRONOUS, HOPPER, TIME_GEMMS };

/* The oldest architecture that the kernels are built for. */
#define OLDEST_MAJOR 8

static const fw_ops ops = {.struct_size = sizeof(fw_ops),
                           .gemm = cuda_gemm,
                           .embedding_forward = cuda_embedding_forward,
                           .embedding_backward = cuda_embedding_backward,
                           .rmsnorm_forward = cuda_rmsnorm_forward,
                           .rmsnorm_backward = cuda_rmsnorm_backward,
                           .residual_norm_forward = cuda_residual_norm_forward,
                           .residual_norm_backward = cuda_residual_norm_backward,
                           .rope_table = cuda_rope_table,
                           .qk_norm_rope_forward = cuda_qk_norm_rope_forward,
                           .qk_norm_rope_backward = cuda_qk_norm_rope_backward,
                           .attention_scratch = cuda_attention_scratch,
                           .attention_forward = cuda_attention_forward,
                           .attention_backward = cuda_attention_backward,
                           .activation_forward = cuda_activation_forward,
                           .activation_backward = cuda_activation_backward,
                           .cross_entropy_forward = cuda_cross_entropy_forward,
                           .cross_entropy_backward = cuda_cross_entropy_backward,
                           .log_softmax = cuda_log_softmax,
                           .reduce = cuda_reduce,
                           .axpby = cuda_axpby,
                           .lerp = cuda_lerp,
                           .cast = cuda_cast,
                           .clip = cuda_clip,
                           .adamw = cuda_adamw,
                           .momentum = cuda_momentum,
                           .newton_schulz_scratch = cuda_newton_schulz_scratch,
                           .newton_schulz = cuda_newton_schulz,
                           .apply_update = cuda_apply_update,
                           .row_absmax = cuda_row_absmax,
                           .fake_quantize = cuda_fake_quantize,
                           .smear_forward = cuda_smear_forward,
                           .smear_backward = cuda_smear_backward,
                           .linear_activation_saved = cuda_linear_activation_saved,
                           .linear_activation_forward = cuda_linear_activation_forward,
                           .linear_activation_backward = cuda_linear_activation_backward,
                           .scale_rows_forward = cuda_scale_rows_forward,
                           .scale_rows_backward = cuda_scale_rows_backward};

/* ---- which devices there are ---- */

/* 12080 -> "12.8" */
static void version_text(int version, char *text, size_t size) {
    (void)snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

static fw_status no_device(cudaError_t code, fw_error *error) {
    int driver = 0;
    char has[16], wants[16];
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&driver);
    version_text(driver, has, sizeof has);
    version_text(CUDART_VERSION, wants, sizeof wants);
    if (driver == 0)
        (void)fw_fail(error, FW_OK, "no NVIDIA driver is loaded");
    else if (code == cudaErrorInsufficientDriver)
        (void)fw_fail(error, FW_OK,
                      "the NVIDIA driver is for CUDA %s, and this build needs CUDA %s: update it",
                      has, wants);
    else
        (void)fw_fail(error, FW_OK, "no GPU is visible: %s", cudaGetErrorString(code));
    return FW_OK;
}

static fw_status count(uint32_t *n, fw_error *error) {
    if (n == NULL) return fw_fail(error, FW_E_ARGUMENT, "cuda: count is NULL");
    int found = 0;
    const cudaError_t code = cudaGetDeviceCount(&found);
    *n = code == cudaSuccess ? (uint32_t)found : 0;
    return *n > 0 ? FW_OK : no_device(code, error);
}

static fw_status properties_of(int32_t ordinal, cudaDeviceProp *properties, fw_error *error) {
    uint32_t n = 0;
    fw_error why = {.struct_size = sizeof why};
    FW_TRY(count(&n, &why));
    if (n == 0) return fw_fail(error, FW_E_NOT_FOUND, "cuda: %s", why.message);
    if (ordinal < 0 || (uint32_t)ordinal >= n)
        return fw_fail(error, FW_E_NOT_FOUND, "cuda: there is no device %d, only 0 .. %u", ordinal,
                       n - 1);
    const cudaError_t code = cudaGetDeviceProperties(properties, ordinal);
    if (code == cudaSuccess) return FW_OK;
    return fw_fail(error, FW_E_DEVICE, "cuda: device %d: %s", ordinal, cudaGetErrorString(code));
}

static fw_status describe(int32_t ordinal, fw_device_info *info, fw_error *error) {
    if (info == NULL || info->struct_size < sizeof *info)
        return fw_fail(error, FW_E_ARGUMENT, "cuda: describe needs info with its struct_size set");
    cudaDeviceProp properties;
    FW_TRY(properties_of(ordinal, &properties, error));
    const size_t cublas = cublasLtGetVersion();
    char runtime[16];
    version_text(CUDART_VERSION, runtime, sizeof runtime);
    info->type = FW_CUDA;
    info->ordinal = ordinal;
    info->threads = 0;
    info->memory_bytes = properties.totalGlobalMem;
    (void)snprintf(info->name, sizeof info->name, "%.120s", properties.name);
    (void)snprintf(info->libraries, sizeof info->libraries, "CUDA %s, cuBLASLt %zu.%zu.%zu",
                   runtime, cublas / 10000, cublas / 100 % 100, cublas % 100);
    return FW_OK;
}

/* ---- one device ---- */

static void destroy(fw_device *device) {
    if (device == NULL) return;
    cuda_device *cuda = cuda_self(device);
    cuda_gemm_destroy(cuda);
    (void)cudaFree(cuda->workspace);
    if (cuda->ready != NULL) (void)cudaEventDestroy(cuda->ready);
    if (cuda->copies != NULL) (void)cudaStreamDestroy(cuda->copies);
    if (cuda->stream != NULL) (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static fw_device table(cuda_device *cuda, int32_t ordinal) {
    return (fw_device){.struct_size = sizeof(fw_device),
                       .type = FW_CUDA,
                       .ordinal = ordinal,
                       .compute_dtype = FW_BF16,
                       .stream = cuda->stream,
                       .self = cuda,
                       .allocate = cuda_allocate,
                       .release = cuda_release,
                       .copy_from_host = cuda_copy_from_host,
                       .copy_to_host = cuda_copy_to_host,
                       .copy = cuda_copy,
                       .zero = cuda_zero,
                       .synchronize = cuda_synchronize,
                       .ops = &ops,
                       .allocate_host = cuda_allocate_host,
                       .release_host = cuda_release_host,
                       .copy_to_host_async = cuda_copy_to_host_async,
                       .fence_create = cuda_fence_create,
                       .fence_destroy = cuda_fence_destroy,
                       .fence_record = cuda_fence_record,
                       .fence_wait = cuda_fence_wait,
                       .capture_begin = cuda_capture_begin,
                       .capture_end = cuda_capture_end,
                       .graph_launch = cuda_graph_launch,
                       .graph_destroy = cuda_graph_destroy,
                       .copy_to_host_beside = cuda_copy_to_host_beside};
}

/* Whether this file was built with code for sm_90a (CMake's FAIRWAY_CUDA_ARCHITECTURES). */
#ifdef FAIRWAY_CUDA_HOPPER
static const bool built_for_hopper = true;
#else
static const bool built_for_hopper = false;
#endif

static void adopt(cuda_device *cuda, const cudaDeviceProp *properties, const fw_value *values) {
    cuda->multiprocessors = properties->multiProcessorCount;
    cuda->shared_bytes = (int)properties->sharedMemPerBlockOptin;
    cuda->synchronous = values[SYNCHRONOUS].integer != 0;
    cuda->time_gemms = values[TIME_GEMMS].integer != 0;
    cuda->hopper = built_for_hopper && properties->major == 9 && properties->minor == 0 &&
                   values[HOPPER].integer != 0;
    cuda->op = cuda->kernel = "none";
}

static fw_status open_device(cuda_device *cuda, int32_t ordinal, fw_error *error) {
    CUDA_TRY(cuda, cudaSetDevice(ordinal), "cuda: create", error);
    CUDA_TRY(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
             "cuda: create a stream", error);
    CUDA_TRY(cuda, cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking),
             "cuda: create a stream of copies", error);
    CUDA_TRY(cuda, cudaEventCreateWithFlags(&cuda->ready, cudaEventDisableTiming),
             "cuda: create an event", error);
    void *memory = NULL;
    CUDA_TRY(cuda, cudaMalloc(&memory, CUDA_WORKSPACE_BYTES), "cuda: allocate the workspace",
             error);
    cuda->workspace = static_cast<char *>(memory);
    FW_TRY(cuda_gemm_create(cuda, error));
    cuda->base = table(cuda, ordinal);
    return FW_OK;
}

static fw_status create(const fw_host *host, const fw_value *values, int32_t ordinal,
                        fw_device **device, fw_error *error) {
    if (values == NULL || device == NULL)
        return fw_fail(error, FW_E_ARGUMENT,
                       "cuda: create needs values and a place for the device");
    cudaDeviceProp properties;
    FW_TRY(properties_of(ordinal, &properties, error));
    if (properties.major < OLDEST_MAJOR)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "cuda: %s has compute capability %d.%d, and %d.0 is the oldest supported",
                       properties.name, properties.major, properties.minor, OLDEST_MAJOR);
    cuda_device *cuda = static_cast<cuda_device *>(calloc(1, sizeof *cuda));
    if (cuda == NULL) return fw_fail(error, FW_E_MEMORY, "cuda: no memory for the device");
    cuda->host = host;
    adopt(cuda, &properties, values);
    cuda->base.self = cuda;
    const fw_status status = open_device(cuda, ordinal, error);
    if (status != FW_OK) {
        destroy(&cuda->base);
        return status;
    }
    *device = &cuda->base;
    return FW_OK;
}

static const fw_param params[] = {
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "synchronous", "no",
                   "wait after every op, so that an error names the op that failed; slow"),
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "hopper", "yes",
                   "use wgmma and TMA kernels where the GPU has them; no: what every GPU runs"),
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "time_gemms", "yes",
                   "choose each matrix product's algorithm by timing it at its first use; no: the "
                   "library's first choice, the same in every run"),
};

static const fw_device_driver driver = {.struct_size = sizeof(fw_device_driver),
                                        .count = count,
                                        .describe = describe,
                                        .create = create,
                                        .destroy = destroy};

static const fw_plugin cuda = {.struct_size = sizeof(fw_plugin),
                               .kind = FW_DEVICE,
                               .id = "cuda",
                               .version = "1.0.0",
                               .summary = "bfloat16 on NVIDIA GPUs: cuBLASLt and own kernels",
                               .vendor = "Fairway",
                               .license = "MIT",
                               .devices = FW_CUDA,
                               .n_params = sizeof params / sizeof params[0],
                               .params = params,
                               .vtable = &driver};

extern "C" {
FW_DEFINE_MODULE(&cuda);
}
