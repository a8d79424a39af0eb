/* Memory of the CPU device: plain host memory. Large blocks start on a huge-page boundary and ask
 * for huge pages, which saves most of the TLB misses of wide activations. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SMALL_ALIGNMENT ((size_t)256)
#define HUGE_PAGE ((size_t)2 << 20)

static double free_gigabytes(void) {
    const double pages = (double)sysconf(_SC_AVPHYS_PAGES);
    return pages * (double)sysconf(_SC_PAGESIZE) * 1e-9;
}

fw_status cpu_allocate(fw_device *device, size_t bytes, void **memory, fw_error *error) {
    if (device == NULL || memory == NULL)
        return fw_fail(error, FW_E_ARGUMENT, "allocate: device or memory is NULL");
    const size_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : SMALL_ALIGNMENT;
    const size_t wanted = bytes > 0 ? bytes : 1;
    void *block = NULL;
    if (wanted <= SIZE_MAX - alignment)
        block = aligned_alloc(alignment, (wanted + alignment - 1) / alignment * alignment);
    if (block == NULL)
        return fw_fail(error, FW_E_MEMORY, "allocate: no room for %zu bytes (%.2f GB free)", bytes,
                       free_gigabytes());
    if (alignment == HUGE_PAGE) (void)madvise(block, wanted, MADV_HUGEPAGE); /* a hint only */
    *memory = block;
    return FW_OK;
}

void cpu_release(fw_device *device, void *memory) {
    (void)device;
    free(memory);
}

fw_status cpu_copy(fw_device *device, void *to, const void *from, size_t bytes, fw_error *error) {
    if (device == NULL || ((to == NULL || from == NULL) && bytes > 0))
        return fw_fail(error, FW_E_ARGUMENT, "copy: a pointer is NULL");
    if (bytes > 0) memmove(to, from, bytes);
    return FW_OK;
}

fw_status cpu_zero(fw_device *device, void *memory, size_t bytes, fw_error *error) {
    if (device == NULL || (memory == NULL && bytes > 0))
        return fw_fail(error, FW_E_ARGUMENT, "zero: a pointer is NULL");
    if (bytes > 0) memset(memory, 0, bytes);
    return FW_OK;
}

fw_status cpu_synchronize(fw_device *device, fw_error *error) {
    (void)device, (void)error;
    return FW_OK;
}
