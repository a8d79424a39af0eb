/* The stream's order: launches and their errors, waiting, fences, and graphs of captured work. */
#include "cuda_device.h"

#include <cstdlib>

fw_status cuda_fail(const cuda_device *cuda, cudaError_t code, const char *what, fw_error *error) {
    const fw_status status = code == cudaErrorMemoryAllocation ? FW_E_MEMORY : FW_E_DEVICE;
    if (cuda->position == 0)
        return fw_fail(error, status, "%s: %s (%s)", what, cudaGetErrorString(code),
                       cudaGetErrorName(code));
    return fw_fail(error, status,
                   "%s: %s (%s), seen behind op %llu since the last wait, %s, kernel %s%s", what,
                   cudaGetErrorString(code), cudaGetErrorName(code),
                   (unsigned long long)cuda->position, cuda->op, cuda->kernel,
                   cuda->synchronous ? "" : "; device.synchronous = yes names the op that failed");
}

fw_status cuda_launched(cuda_device *cuda, const char *op, const char *kernel, fw_error *error) {
    cuda->op = op;
    cuda->kernel = kernel;
    cuda->position++;
    cudaError_t code = cudaGetLastError();
    if (code == cudaSuccess && cuda->synchronous && !cuda->capturing)
        code = cudaStreamSynchronize(cuda->stream);
    return code == cudaSuccess ? FW_OK : cuda_fail(cuda, code, op, error);
}

fw_status cuda_synchronize(fw_device *device, fw_error *error) {
    if (device == NULL) return fw_fail(error, FW_E_ARGUMENT, "synchronize: device is NULL");
    cuda_device *cuda = cuda_self(device);
    CUDA_TRY(cuda, cudaStreamSynchronize(cuda->stream), "synchronize", error);
    CUDA_TRY(cuda, cudaStreamSynchronize(cuda->copies), "synchronize", error);
    cuda->position = 0;
    return FW_OK;
}

/* ---- fences ---- */

/* A place in both streams. */
struct cuda_fence {
    cudaEvent_t work, copies;
};

fw_status cuda_fence_create(fw_device *device, void **fence, fw_error *error) {
    if (device == NULL || fence == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "fence_create: device or fence is NULL");
    const cuda_device *cuda = cuda_self(device);
    struct cuda_fence *made = static_cast<struct cuda_fence *>(calloc(1, sizeof *made));
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "fence_create: no memory");
    cudaError_t code = cudaEventCreateWithFlags(&made->work, cudaEventDisableTiming);
    if (code == cudaSuccess) code = cudaEventCreateWithFlags(&made->copies, cudaEventDisableTiming);
    if (code != cudaSuccess) {
        cuda_fence_destroy(device, made);
        return cuda_fail(cuda, code, "fence_create", error);
    }
    *fence = made;
    return FW_OK;
}

void cuda_fence_destroy(fw_device *device, void *fence) {
    (void)device;
    if (fence == NULL) return;
    const struct cuda_fence *f = static_cast<const struct cuda_fence *>(fence);
    if (f->work != NULL) (void)cudaEventDestroy(f->work);
    if (f->copies != NULL) (void)cudaEventDestroy(f->copies);
    free(fence);
}

fw_status cuda_fence_record(fw_device *device, void *fence, fw_error *error) {
    const cuda_device *cuda = cuda_self(device);
    const struct cuda_fence *f = static_cast<const struct cuda_fence *>(fence);
    CUDA_TRY(cuda, cudaEventRecord(f->work, cuda->stream), "fence_record", error);
    CUDA_TRY(cuda, cudaEventRecord(f->copies, cuda->copies), "fence_record", error);
    return FW_OK;
}

fw_status cuda_fence_wait(fw_device *device, void *fence, fw_error *error) {
    const cuda_device *cuda = cuda_self(device);
    const struct cuda_fence *f = static_cast<const struct cuda_fence *>(fence);
    CUDA_TRY(cuda, cudaEventSynchronize(f->work), "fence_wait", error);
    CUDA_TRY(cuda, cudaEventSynchronize(f->copies), "fence_wait", error);
    return FW_OK;
}

/* ---- graphs ---- */

fw_status cuda_capture_begin(fw_device *device, fw_error *error) {
    cuda_device *cuda = cuda_self(device);
    if (cuda->synchronous)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "capture_begin: a device with device.synchronous = yes waits after each op");
    CUDA_TRY(cuda, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
             "capture_begin", error);
    cuda->capturing = true;
    return FW_OK;
}

fw_status cuda_capture_end(fw_device *device, void **graph, fw_error *error) {
    cuda_device *cuda = cuda_self(device);
    cudaGraph_t captured = NULL;
    cudaGraphExec_t executable = NULL;
    *graph = NULL;
    cuda->capturing = false;
    CUDA_TRY(cuda, cudaStreamEndCapture(cuda->stream, &captured), "capture_end", error);
    const cudaError_t code = cudaGraphInstantiate(&executable, captured, 0);
    (void)cudaGraphDestroy(captured);
    if (code != cudaSuccess) return cuda_fail(cuda, code, "capture_end", error);
    *graph = executable;
    return FW_OK;
}

fw_status cuda_graph_launch(fw_device *device, void *graph, fw_error *error) {
    cuda_device *cuda = cuda_self(device);
    CUDA_TRY(cuda, cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), cuda->stream),
             "graph_launch", error);
    return cuda_launched(cuda, "graph_launch", "captured step", error);
}

void cuda_graph_destroy(fw_device *device, void *graph) {
    (void)device;
    if (graph != NULL) (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}
