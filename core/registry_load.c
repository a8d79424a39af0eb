/* Loading one module: dlopen and every check that can be made without running the plugin's code.
 *
 * What the plugin says of itself is untrusted until checked here; after that the rest of the host
 * may rely on it: known kind, proper id, readable texts, a parameter table that parses, and every
 * required member of the vtable present. Members appended after v0.1 stay optional forever. */
#include "registry_load.h"

#include <dlfcn.h>
#include <fairway/fairway.h>
#include <string.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "params.h"
#include "registry.h"

enum { MAX_PLUGINS = 256, MAX_STRUCT = 65536, MAX_ID = 63 };

/* The state of the SSE unit. Its six lowest bits are sticky exception flags, which any arithmetic
 * may raise; the others (rounding, flush to zero, denormals are zero, masks) control results. */
#define STICKY_BITS 0x3fu

static unsigned float_state(void) {
#if defined(__SSE__)
    return _mm_getcsr();
#else
    return 0;
#endif
}

static void set_float_state(unsigned state) {
#if defined(__SSE__)
    _mm_setcsr(state);
#else
    (void)state;
#endif
}

#define REQUIRED(type, member)                                                                     \
    { #member, offsetof(type, member) }
struct required_member {
    const char *name;
    size_t offset;
};

static const struct required_member attention_members[] = {
    REQUIRED(fw_attention, create),    REQUIRED(fw_attention, destroy),
    REQUIRED(fw_attention, n_weights), REQUIRED(fw_attention, weight),
    REQUIRED(fw_attention, plan),      REQUIRED(fw_attention, forward),
    REQUIRED(fw_attention, backward),  REQUIRED(fw_attention, forward_flops)};
static const struct required_member optimizer_members[] = {
    REQUIRED(fw_optimizer, create), REQUIRED(fw_optimizer, destroy), REQUIRED(fw_optimizer, slots),
    REQUIRED(fw_optimizer, plan),   REQUIRED(fw_optimizer, prepare), REQUIRED(fw_optimizer, step)};
static const struct required_member averager_members[] = {
    REQUIRED(fw_averager, create), REQUIRED(fw_averager, destroy), REQUIRED(fw_averager, result)};
static const struct required_member quantizer_members[] = {
    REQUIRED(fw_quantizer, create), REQUIRED(fw_quantizer, destroy),
    REQUIRED(fw_quantizer, plan),   REQUIRED(fw_quantizer, streams),
    REQUIRED(fw_quantizer, encode), REQUIRED(fw_quantizer, decode)};
static const struct required_member compressor_members[] = {
    REQUIRED(fw_compressor, create), REQUIRED(fw_compressor, destroy),
    REQUIRED(fw_compressor, bound), REQUIRED(fw_compressor, compress),
    REQUIRED(fw_compressor, decompress)};
static const struct required_member cache_members[] = {
    REQUIRED(fw_cache, create), REQUIRED(fw_cache, destroy), REQUIRED(fw_cache, begin),
    REQUIRED(fw_cache, predict), REQUIRED(fw_cache, update)};
static const struct required_member device_members[] = {
    REQUIRED(fw_device_driver, count), REQUIRED(fw_device_driver, describe),
    REQUIRED(fw_device_driver, create), REQUIRED(fw_device_driver, destroy)};
static const struct required_member collective_members[] = {
    REQUIRED(fw_collective, create),     REQUIRED(fw_collective, destroy),
    REQUIRED(fw_collective, rank),       REQUIRED(fw_collective, size),
    REQUIRED(fw_collective, all_reduce), REQUIRED(fw_collective, reduce_scatter),
    REQUIRED(fw_collective, all_gather), REQUIRED(fw_collective, broadcast),
    REQUIRED(fw_collective, barrier)};
static const struct required_member tokenizer_members[] = {
    REQUIRED(fw_tokenizer, create),      REQUIRED(fw_tokenizer, destroy),
    REQUIRED(fw_tokenizer, vocabulary),  REQUIRED(fw_tokenizer, token),
    REQUIRED(fw_tokenizer, begin_token), REQUIRED(fw_tokenizer, fingerprint),
    REQUIRED(fw_tokenizer, bound),       REQUIRED(fw_tokenizer, encode),
    REQUIRED(fw_tokenizer, decode)};

#define MEMBERS(kind, table) [kind] = {table, sizeof table / sizeof table[0]}
static const struct {
    const struct required_member *members;
    size_t n;
} required[] = {
    MEMBERS(FW_ATTENTION, attention_members),   MEMBERS(FW_OPTIMIZER, optimizer_members),
    MEMBERS(FW_AVERAGER, averager_members),     MEMBERS(FW_QUANTIZER, quantizer_members),
    MEMBERS(FW_COMPRESSOR, compressor_members), MEMBERS(FW_CACHE, cache_members),
    MEMBERS(FW_DEVICE, device_members),         MEMBERS(FW_COLLECTIVE, collective_members),
    MEMBERS(FW_TOKENIZER, tokenizer_members)};

bool plugin_id_well_formed(const char *id) {
    if (id[0] < 'a' || id[0] > 'z' || strlen(id) > MAX_ID) return false;
    return strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(id);
}

static fw_status check_vtable(const fw_plugin *plugin, fw_error *error) {
    const char *table = plugin->vtable;
    if (table == NULL) return fw_fail(error, FW_E_ABI, "it has no vtable");
    uint32_t size;
    memcpy(&size, table, sizeof size);
    if (size > MAX_STRUCT) return fw_fail(error, FW_E_ABI, "its vtable claims %u bytes", size);
    for (size_t i = 0; i < required[plugin->kind].n; i++) {
        const struct required_member *member = &required[plugin->kind].members[i];
        if (member->offset + sizeof(void *) > size)
            return fw_fail(error, FW_E_ABI, "its vtable of %u bytes ends before %s()", size,
                           member->name);
        void *function;
        memcpy(&function, table + member->offset, sizeof function);
        if (function == NULL)
            return fw_fail(error, FW_E_ABI, "its vtable lacks %s()", member->name);
    }
    return FW_OK;
}

static fw_status check_plugin(const fw_plugin *plugin, fw_error *error) {
    const char *const texts[] = {plugin->version, plugin->summary, plugin->vendor, plugin->license};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i] == NULL)
            return fw_fail(error, FW_E_ABI, "version, summary, vendor and license must be given");
    fw_error why = {.struct_size = sizeof why};
    if (params_check(plugin->params, plugin->n_params, &why) != FW_OK)
        return fw_fail(error, FW_E_ABI, "its parameter table is broken: %s", why.message);
    return check_vtable(plugin, error);
}

/* Kinds that a later host may know; a module built for it can still offer us its other plugins. */
static bool kind_known(uint32_t kind) {
    return kind >= 1 && kind < sizeof required / sizeof required[0];
}

static fw_status check_entry(const char *path, const fw_module *module, uint32_t index,
                             fw_error *error) {
    const fw_plugin *plugin = module->plugins[index];
    if (plugin == NULL ||
        plugin->struct_size < offsetof(fw_plugin, vtable) + sizeof(const void *) ||
        plugin->struct_size > MAX_STRUCT)
        return fw_fail(error, FW_E_ABI, "%s: the description of plugin %u has %u bytes, not %zu",
                       path, index, plugin != NULL ? plugin->struct_size : 0, sizeof(fw_plugin));
    if (!kind_known(plugin->kind)) {
        if (module->abi_minor > FW_ABI_MINOR) return FW_OK;
        return fw_fail(error, FW_E_ABI, "%s: plugin %u is of the unknown kind %u", path, index,
                       plugin->kind);
    }
    if (plugin->id == NULL || !plugin_id_well_formed(plugin->id))
        return fw_fail(error, FW_E_ABI,
                       "%s: plugin %u has the id '%.64s'; an id is of lower case letters, digits "
                       "and _, at most 63",
                       path, index, plugin->id != NULL ? plugin->id : "");
    for (uint32_t i = 0; i < index; i++)
        if (module->plugins[i]->kind == plugin->kind && module->plugins[i]->id != NULL &&
            strcmp(module->plugins[i]->id, plugin->id) == 0)
            return fw_fail(error, FW_E_ABI, "%s: lists %s %s twice", path, kind_name(plugin->kind),
                           plugin->id);
    fw_error why = {.struct_size = sizeof why};
    if (check_plugin(plugin, &why) != FW_OK)
        return fw_fail(error, FW_E_ABI, "%s: %s %s: %s", path, kind_name(plugin->kind), plugin->id,
                       why.message);
    return FW_OK;
}

fw_status module_check(const char *path, const fw_module *module, fw_error *error) {
    if (module->magic != FW_MODULE_MAGIC)
        return fw_fail(error, FW_E_ABI,
                       "%s: not a Fairway module: its magic is %016llx instead of %016llx", path,
                       (unsigned long long)module->magic, (unsigned long long)FW_MODULE_MAGIC);
    if (module->struct_size < offsetof(fw_module, plugins) + sizeof(const void *) ||
        module->struct_size > MAX_STRUCT)
        return fw_fail(error, FW_E_ABI, "%s: its module struct has %u bytes; %zu is the least",
                       path, module->struct_size, sizeof(fw_module));
    if (module->pointer_size != sizeof(void *))
        return fw_fail(error, FW_E_ABI, "%s: built for pointers of %u bytes, this host has %zu",
                       path, module->pointer_size, sizeof(void *));
    if (module->min_host_minor > FW_ABI_MINOR)
        return fw_fail(error, FW_E_ABI,
                       "%s: needs a host with interface 0.%u or later; this host has %d.%d", path,
                       module->min_host_minor, FW_ABI_MAJOR, FW_ABI_MINOR);
    if (module->n_plugins == 0 || module->n_plugins > MAX_PLUGINS || module->plugins == NULL)
        return fw_fail(error, FW_E_ABI, "%s: lists %u plugins; 1 to %d are possible", path,
                       module->plugins != NULL ? module->n_plugins : 0, MAX_PLUGINS);
    for (uint32_t i = 0; i < module->n_plugins; i++) FW_TRY(check_entry(path, module, i, error));
    return FW_OK;
}

/* Why dlopen failed, without the path that it often repeats. */
static fw_status loader_error(const char *path, fw_error *error) {
    const char *why = dlerror();
    if (why == NULL) why = "the dynamic loader gives no reason";
    const size_t n = strlen(path);
    if (strncmp(why, path, n) == 0 && why[n] == ':') why += n + 1 + (why[n + 1] == ' ');
    return fw_fail(error, FW_E_IO, "%s: cannot be loaded: %s", path, why);
}

fw_status module_load(const char *path, const fw_module **module, fw_error *error) {
    if (access(path, F_OK) != 0) return fw_fail(error, FW_E_NOT_FOUND, "%s: no such file", path);
    const unsigned before = float_state();
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    const unsigned after = float_state();
    set_float_state(before);
    if (library == NULL) return loader_error(path, error);
    if ((after & ~STICKY_BITS) != (before & ~STICKY_BITS))
        return fw_fail(error, FW_E_ABI,
                       "%s: loading it changes the floating-point environment (MXCSR %04x to "
                       "%04x), so that every result would differ; build it without -ffast-math",
                       path, before, after);
    const fw_module *found = (const fw_module *)dlsym(library, FW_MODULE_SYMBOL);
    if (found == NULL)
        return fw_fail(error, FW_E_ABI, "%s: not a Fairway module: it exports no %s", path,
                       FW_MODULE_SYMBOL);
    FW_TRY(module_check(path, found, error));
    *module = found;
    return FW_OK;
}
