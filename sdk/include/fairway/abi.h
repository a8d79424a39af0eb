/* The ground rules of Fairway's binary interface: versions, visibility, growth.
 *
 * Every struct that crosses the boundary begins with `struct_size`, set by whoever allocates it,
 * and only ever grows at its end. Never compare sizes for equality: ask FW_HAS. Layouts are those
 * of a 64-bit platform; layout.h asserts the offset of every public field. */
#ifndef FAIRWAY_ABI_H
#define FAIRWAY_ABI_H

#include <stddef.h>
#include <stdint.h>

/* While the major version is 0 the interface may change; every change is a line in sdk/ABI.md. */
#define FW_ABI_MAJOR 0
#define FW_ABI_MINOR 4

/* "FAIRWAY" read as a little-endian 64-bit word: the first field of every module. */
#define FW_MODULE_MAGIC UINT64_C(0x0059415752494146)

#ifdef __cplusplus
#define FW_BEGIN_DECLS extern "C" {
#define FW_END_DECLS }
#define FW_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define FW_BEGIN_DECLS
#define FW_END_DECLS
#define FW_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#if defined(__GNUC__)
#define FW_EXPORT __attribute__((visibility("default")))
#define FW_PRINTF(format_index, first) __attribute__((format(printf, format_index, first)))
#else
#define FW_EXPORT
#define FW_PRINTF(format_index, first)
#endif

/* True when `member` lies within what the other side allocated. */
#define FW_COVERS(table, member)                                                                   \
    ((size_t)((const char *)(&(table)->member + 1) - (const char *)(table)) <=                     \
     (size_t)(table)->struct_size)

/* True when the optional function or pointer `member` exists: covered by the size and not NULL. */
#define FW_HAS(table, member)                                                                      \
    ((table) != NULL && FW_COVERS(table, member) && (table)->member != NULL)

/* The kinds of plugin. Values are stable; new kinds are appended. */
#define FW_KIND_MAP(X)                                                                             \
    X(ATTENTION, 1, "attention")                                                                   \
    X(OPTIMIZER, 2, "optimizer")                                                                   \
    X(AVERAGER, 3, "averager")                                                                     \
    X(QUANTIZER, 4, "quantizer")                                                                   \
    X(COMPRESSOR, 5, "compressor")                                                                 \
    X(CACHE, 6, "cache")                                                                           \
    X(DEVICE, 7, "device")                                                                         \
    X(COLLECTIVE, 8, "collective")                                                                 \
    X(TOKENIZER, 9, "tokenizer")

typedef enum fw_kind {
#define FW_KIND_ENUM(name, value, text) FW_##name = value,
    FW_KIND_MAP(FW_KIND_ENUM)
#undef FW_KIND_ENUM
} fw_kind;

/* Device types, usable as a bit mask in fw_plugin.devices. */
enum { FW_CPU = 1u << 0, FW_CUDA = 1u << 1 };

#endif
