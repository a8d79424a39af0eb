/* Memory of the CUDA device and of the host beside it, and copies between the two. */
#include "cuda_device.h"

static fw_status no_room(cuda_device *cuda, size_t bytes, cudaError_t code, fw_error *error) {
    size_t free_bytes = 0, total = 0;
    (void)cudaGetLastError();
    if (code != cudaErrorMemoryAllocation) return cuda_fail(cuda, code, "allocate", error);
    (void)cudaMemGetInfo(&free_bytes, &total);
    return fw_fail(error, FW_E_MEMORY,
                   "allocate: no room for %.3f GB on the GPU, %.3f of its %.1f GB are free",
                   1e-9 * (double)bytes, 1e-9 * (double)free_bytes, 1e-9 * (double)total);
}

fw_status cuda_allocate(fw_device *device, size_t bytes, void **memory, fw_error *error) {
    if (device == NULL || memory == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "allocate: device or memory is NULL");
    void *block = NULL;
    const cudaError_t code = cudaMalloc(&block, bytes > 0 ? bytes : 1);
    if (code != cudaSuccess) return no_room(cuda_self(device), bytes, code, error);
    *memory = block;
    return FW_OK;
}

/* cudaFree waits for the device by itself. */
void cuda_release(fw_device *device, void *memory) {
    (void)device;
    (void)cudaFree(memory);
}

fw_status cuda_allocate_host(fw_device *device, size_t bytes, void **memory, fw_error *error) {
    if (device == NULL || memory == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "allocate_host: device or memory is NULL");
    void *block = NULL;
    if (cudaMallocHost(&block, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError();
        return fw_fail(error, FW_E_MEMORY, "allocate_host: no room for %.3f GB of pinned memory",
                       1e-9 * (double)bytes);
    }
    *memory = block;
    return FW_OK;
}

void cuda_release_host(fw_device *device, void *memory) {
    (void)device;
    (void)cudaFreeHost(memory);
}

static fw_status copy(fw_device *device, void *to, const void *from, size_t bytes,
                      cudaMemcpyKind kind, fw_error *error) {
    if (device == NULL || ((to == NULL || from == NULL) && bytes > 0))
        return fw_fail(error, FW_E_ARGUMENT, "copy: a pointer is NULL");
    if (bytes == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    CUDA_TRY(cuda, cudaMemcpyAsync(to, from, bytes, kind, cuda->stream), "copy", error);
    return FW_OK;
}

/* From pageable memory the driver takes its own copy before the call returns. */
fw_status cuda_copy_from_host(fw_device *device, void *to, const void *from, size_t bytes,
                              fw_error *error) {
    return copy(device, to, from, bytes, cudaMemcpyHostToDevice, error);
}

fw_status cuda_copy_to_host_async(fw_device *device, void *to, const void *from, size_t bytes,
                                  fw_error *error) {
    return copy(device, to, from, bytes, cudaMemcpyDeviceToHost, error);
}

/* In synchronous mode, too, it is only the copy itself that nobody waits for. */
fw_status cuda_copy_to_host_beside(fw_device *device, void *to, const void *from, size_t bytes,
                                   fw_error *error) {
    if (device == NULL || ((to == NULL || from == NULL) && bytes > 0))
        return fw_fail(error, FW_E_ARGUMENT, "copy_to_host_beside: a pointer is NULL");
    if (bytes == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    const char *what = "copy_to_host_beside";
    CUDA_TRY(cuda, cudaEventRecord(cuda->ready, cuda->stream), what, error);
    CUDA_TRY(cuda, cudaStreamWaitEvent(cuda->copies, cuda->ready, 0), what, error);
    CUDA_TRY(cuda, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda->copies), what,
             error);
    return FW_OK;
}

fw_status cuda_copy_to_host(fw_device *device, void *to, const void *from, size_t bytes,
                            fw_error *error) {
    FW_TRY(copy(device, to, from, bytes, cudaMemcpyDeviceToHost, error));
    return cuda_synchronize(device, error);
}

fw_status cuda_copy(fw_device *device, void *to, const void *from, size_t bytes, fw_error *error) {
    return copy(device, to, from, bytes, cudaMemcpyDeviceToDevice, error);
}

fw_status cuda_zero(fw_device *device, void *memory, size_t bytes, fw_error *error) {
    if (device == NULL || (memory == NULL && bytes > 0))
        return fw_fail(error, FW_E_ARGUMENT, "zero: a pointer is NULL");
    if (bytes == 0) return FW_OK;
    cuda_device *cuda = cuda_self(device);
    CUDA_TRY(cuda, cudaMemsetAsync(memory, 0, bytes, cuda->stream), "zero", error);
    return FW_OK;
}
