/* Memory that will be wanted soon, asked for now: a wish, and nothing where a compiler knows none.
 */
#ifndef CACHE_PREFETCH_H
#define CACHE_PREFETCH_H

static inline void prefetch(const void *address) {
#if defined(__GNUC__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

#endif
