/* Stands in for any plugin while configurations are tested: compiled once for each STAND_IN_KIND
 * and STAND_IN_ID. Its functions are never called, except those of a device. */
#include <fairway/fairway.h>

static const char *const shapes[] = {"round", "square", NULL};
static const fw_param params[] = {
    FW_PARAM_RANGE(FW_PARAM_INT, "level", "3", 1, 9, "steps", "an integer"),
    FW_PARAM_RANGE(FW_PARAM_FLOAT, "rate", "0.5", 0, 1, "", "a number"),
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "fold", "yes", "a flag"),
    FW_PARAM_CHOICE("shape", "round", shapes, "a choice"),
    FW_PARAM_PLAIN(FW_PARAM_STRING, "note", "", "a text"),
    FW_PARAM_PLAIN(FW_PARAM_PATH, "file", "", "a path"),
#ifdef STAND_IN_EXTRA
    FW_PARAM_RANGE(FW_PARAM_INT, "extra", "2", 0, 4, "", "what the other one lacks"),
#endif
#ifdef STAND_IN_TIMED
    FW_PARAM_PLAIN(FW_PARAM_BOOL, "time_products", "yes", "decide by timing"),
#endif
#ifdef STAND_IN_REQUIRED
    FW_PARAM_PLAIN(FW_PARAM_PATH, "model", NULL, "the model file"),
#endif
};

#ifdef STAND_IN_DEVICE
static fw_status count(uint32_t *n, fw_error *error) {
    (void)error;
    *n = STAND_IN_DEVICE;
    return FW_OK;
}
static fw_status describe(int32_t ordinal, fw_device_info *info, fw_error *error) {
    (void)info;
    return fw_fail(error, FW_E_NOT_FOUND, "no device %d", ordinal);
}
static fw_status create(const struct fw_host *host, const fw_value *values, int32_t ordinal,
                        fw_device **device, fw_error *error) {
    (void)host, (void)values, (void)ordinal, (void)device;
    return fw_fail(error, FW_E_DEVICE, "a stand-in");
}
static void destroy(fw_device *device) { (void)device; }
static const fw_device_driver table = {.struct_size = sizeof table,
                                       .count = count,
                                       .describe = describe,
                                       .create = create,
                                       .destroy = destroy};
#else
/* A cache ends before it could say that it is unverified, unless that is what it stands for: then
 * the bits of a function pointer say so. */
#ifdef STAND_IN_UNVERIFIED
enum { UNVERIFIED = 1 };
#else
enum { UNVERIFIED = 0 };
#endif
#define ENDS_EARLY (STAND_IN_KIND == FW_CACHE && !UNVERIFIED)
static void nothing(void) {}
static const struct {
    uint32_t struct_size, zero;
    void (*members[24])(void);
} table = {ENDS_EARLY ? offsetof(fw_cache, unverified) : sizeof table,
           0,
           {nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing,
            nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing,
            nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing}};
#endif

#ifndef STAND_IN_DEVICES
#define STAND_IN_DEVICES FW_CPU
#endif

static const fw_plugin plugin = {.struct_size = sizeof(fw_plugin),
                                 .kind = STAND_IN_KIND,
                                 .id = STAND_IN_ID,
                                 .version = "1.0.0",
                                 .summary = "stands in",
                                 .vendor = "tests",
                                 .license = "MIT",
                                 .devices = STAND_IN_DEVICES,
                                 .n_params = sizeof params / sizeof params[0],
                                 .params = params,
                                 .vtable = &table};
FW_DEFINE_MODULE(&plugin);
