#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create, its seals, sched_getaffinity */
#endif
#include "seat_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

enum {
    MOST_SPINS = 1000, /* looks at a number before sleeping: some 20 to 50 microseconds */
    TRY_EVERY = 256,   /* waits from one try of all of them to the next */
    MOST_VOCABULARY = 1 << 20,
    MOST_CONTEXT = 1 << 16
};

/* ---- layout ---- */

/* Carves segments from one mapping, or only counts when there is none. */
struct carver {
    uint8_t *base; /* NULL: count */
    size_t at, page;
    /* When it looks for the guard page at `sought`: what lies before it. */
    uint64_t sought;
    const char *found;
};

static void *carve(struct carver *carver, size_t bytes, const char *what) {
    const size_t room = (bytes + carver->page - 1) / carver->page * carver->page;
    const size_t begin = carver->at + room - bytes;
    carver->at += room;
    if (carver->sought >= carver->at && carver->sought < carver->at + carver->page)
        carver->found = what;
    if (carver->base != NULL) (void)mprotect(carver->base + carver->at, carver->page, PROT_NONE);
    carver->at += carver->page;
    return carver->base != NULL ? carver->base + begin : NULL;
}

static void carve_slot(struct carver *carver, uint32_t V, uint32_t context,
                       struct channel_slot *slot) {
    slot->ask = carve(carver, sizeof *slot->ask, "its requests");
    slot->context = carve(carver, context * sizeof *slot->context, "the row's context");
    slot->row = carve(carver, V * sizeof *slot->row, "the row's probabilities");
    slot->bulk_ask = carve(carver, CHANNEL_BULK_BYTES, "the tokens it is told");
    slot->say = carve(carver, sizeof *slot->say, "its answers");
    slot->tokens = carve(carver, V * sizeof *slot->tokens, "the tokens of its list");
    slot->values = carve(carver, V * sizeof *slot->values, "the values of its list");
    slot->dense = carve(carver, V * sizeof *slot->dense, "its dense probabilities");
    slot->bulk_say = carve(carver, CHANNEL_BULK_BYTES, "its state");
}

static void carve_all(struct carver *carver, struct channel *channel) {
    carver->page = (size_t)sysconf(_SC_PAGESIZE);
    /* The head's end need not meet the page's: nobody is handed it. */
    channel->head = carve(carver, carver->page, "the channel's head");
    for (int i = 0; i < CHANNEL_SLOTS; i++)
        carve_slot(carver, channel->vocabulary, channel->context, &channel->slots[i]);
}

static size_t bytes_of(const struct channel *channel) {
    struct carver counter = {.base = NULL};
    struct channel counted = *channel;
    carve_all(&counter, &counted);
    return counter.at;
}

const char *channel_segment_before(const struct channel *channel, uint64_t offset) {
    struct carver seeker = {.sought = offset};
    struct channel sought = *channel;
    carve_all(&seeker, &sought);
    return seeker.found;
}

/* Whoever is alone on a processor must not spin: the other side could not run. */
static int choose_spins(void) {
    cpu_set_t processors;
    if (sched_getaffinity(0, sizeof processors, &processors) != 0) return 0;
    return CPU_COUNT(&processors) > 1 ? MOST_SPINS : 0;
}

static fw_status map(int descriptor, struct channel *channel, fw_error *error) {
    channel->bytes = bytes_of(channel);
    channel->most_spins = channel->spins = choose_spins();
    void *memory = mmap(NULL, channel->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED)
        return fw_fail(error, FW_E_MEMORY, "no memory for a channel of %zu bytes: %s",
                       channel->bytes, strerror(errno));
    struct carver carver = {.base = memory};
    carve_all(&carver, channel);
    return FW_OK;
}

static fw_status make(struct channel *channel, int descriptor, fw_error *error) {
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (ftruncate(descriptor, (off_t)bytes_of(channel)) != 0 ||
        fcntl(descriptor, F_ADD_SEALS, seals) != 0)
        return fw_fail(error, FW_E_MEMORY, "no memory for a channel: %s", strerror(errno));
    FW_TRY(map(descriptor, channel, error));
    channel->head->vocabulary = channel->vocabulary;
    channel->head->context = channel->context;
    channel->head->host = getpid();
    return FW_OK;
}

fw_status channel_create(uint32_t vocabulary, uint32_t context, struct channel *channel,
                         int *descriptor, fw_error *error) {
    struct channel made = {.vocabulary = vocabulary, .context = context};
    const int memory = memfd_create("fairway-cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0)
        return fw_fail(error, FW_E_MEMORY, "no memory for a channel: %s", strerror(errno));
    const fw_status status = make(&made, memory, error);
    if (status != FW_OK) {
        (void)close(memory);
        return status;
    }
    *channel = made;
    *descriptor = memory;
    return FW_OK;
}

/* The head alone, to learn the shape. */
static fw_status read_shape(int descriptor, struct channel *channel, fw_error *error) {
    struct channel_head head;
    if (pread(descriptor, &head, sizeof head, 0) != (ssize_t)sizeof head || head.vocabulary == 0 ||
        head.vocabulary > MOST_VOCABULARY || head.context > MOST_CONTEXT)
        return fw_fail(error, FW_E_FORMAT, "descriptor %d is no channel", descriptor);
    channel->vocabulary = head.vocabulary;
    channel->context = head.context;
    return FW_OK;
}

fw_status channel_attach(int descriptor, struct channel *channel, fw_error *error) {
    struct channel made = {0};
    struct stat about;
    FW_TRY(read_shape(descriptor, &made, error));
    if (fstat(descriptor, &about) != 0 || (size_t)about.st_size != bytes_of(&made))
        return fw_fail(error, FW_E_FORMAT, "descriptor %d is no channel", descriptor);
    FW_TRY(map(descriptor, &made, error));
    *channel = made;
    return FW_OK;
}

void channel_unmap(struct channel *channel) {
    if (channel->head != NULL) (void)munmap(channel->head, channel->bytes);
    *channel = (struct channel){0};
}

/* ---- waiting ---- */

static bool reached(const struct channel_count *count, uint32_t number) {
    const uint32_t seen = atomic_load_explicit(&count->number, memory_order_acquire);
    return (int32_t)(seen - number) >= 0;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void channel_advance(struct channel_count *count, uint32_t number, bool wake) {
    atomic_store(&count->number, number);
    if (wake && atomic_load(&count->sleeper) != 0)
        (void)syscall(SYS_futex, &count->number, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static struct timespec timespec_of(double seconds) {
    const double whole = floor(fmin(seconds, 3600));
    return (struct timespec){.tv_sec = (time_t)whole,
                             .tv_nsec = (long)(1e9 * fmin(seconds - whole, 0.999999999))};
}

static void sleep_on(struct channel_count *count, uint32_t number, double seconds) {
    const bool forever = isinf(seconds);
    const struct timespec limit = timespec_of(forever ? 0 : seconds);
    atomic_store(&count->sleeper, 1);
    const uint32_t seen = atomic_load(&count->number);
    if ((int32_t)(seen - number) < 0)
        (void)syscall(SYS_futex, &count->number, FUTEX_WAIT, seen, forever ? NULL : &limit, NULL,
                      0);
    atomic_store(&count->sleeper, 0);
}

/* Spinning was of use if the number came while this thread ran, not because it was made to give up
 * the processor to the other side. */
static bool spin(struct channel *channel, const struct channel_count *count, uint32_t number) {
    static const double useful = 1e-4; /* seconds */
    const bool all = ++channel->waits % TRY_EVERY == 0;
    const int looks = all ? channel->most_spins : channel->spins;
    const double begin = looks > 0 ? clock_seconds() : 0;
    for (int i = 0; i < looks; i++) {
        relax();
        if (!reached(count, number)) continue;
        const bool of_use = clock_seconds() - begin < useful;
        channel->spins = of_use ? channel->most_spins : channel->spins / 2;
        return true;
    }
    channel->spins /= 2;
    return false;
}

bool channel_wait(struct channel *channel, struct channel_count *count, uint32_t number,
                  double seconds) {
    if (reached(count, number) || spin(channel, count, number)) return true;
    do sleep_on(count, number, seconds);
    while (isinf(seconds) && !reached(count, number));
    return reached(count, number);
}
