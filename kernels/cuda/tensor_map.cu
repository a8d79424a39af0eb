#include "tensor_map.h"

typedef CUresult encode_tiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                              const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                              const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function, looked up so that the plugin loads where there is no driver. */
static encode_tiled *find_encoder(void) {
    void *function = NULL;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found);
    return code == cudaSuccess && found == cudaDriverEntryPointSuccess
               ? reinterpret_cast<encode_tiled *>(function)
               : NULL;
}

fw_status cuda_tensor_map(cuda_device *cuda, CUtensorMap *map, const void *data, int rank,
                          const uint64_t *sizes, const uint64_t *strides, const uint32_t *box,
                          fw_error *error) {
    static encode_tiled *const encode = find_encoder();
    const cuuint32_t every[5] = {1, 1, 1, 1, 1};
    if (encode == NULL)
        return fw_fail(error, FW_E_DEVICE, "%s: the driver has no tensor maps", cuda->op);
    const CUresult code = encode(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)rank, const_cast<void *>(data), sizes,
        strides, box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code == CUDA_SUCCESS) return FW_OK;
    return fw_fail(error, FW_E_DEVICE, "the driver refuses a tensor map of rank %d (CUresult %d)",
                   rank, (int)code);
}
