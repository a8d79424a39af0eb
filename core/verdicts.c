#include "verdicts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

const struct probe *verdicts_find(const struct verdicts *verdicts, const char *name) {
    for (size_t i = 0; i < verdicts->n; i++)
        if (strcmp(verdicts->probes[i].name, name) == 0) return &verdicts->probes[i];
    return NULL;
}

static struct probe *probe_named(struct verdicts *verdicts, const char *name) {
    for (size_t i = 0; i < verdicts->n; i++)
        if (strcmp(verdicts->probes[i].name, name) == 0) return &verdicts->probes[i];
    if (verdicts->n == MOST_PROBES) return &verdicts->probes[MOST_PROBES - 1];
    struct probe *made = &verdicts->probes[verdicts->n++];
    *made = (struct probe){.verdict = VERDICT_PASS};
    (void)snprintf(made->name, sizeof made->name, "%s", name);
    return made;
}

struct probe *verdicts_probe(struct verdicts *verdicts, const char *subject, const char *what) {
    char name[sizeof verdicts->probes[0].name];
    (void)snprintf(name, sizeof name, "%.20s.%.26s", subject, what);
    return probe_named(verdicts, name);
}

static void say(struct probe *probe, enum verdict verdict, const char *format, va_list arguments) {
    probe->verdict = verdict;
    (void)vsnprintf(probe->words, sizeof probe->words, format, arguments);
}

void probe_fail(struct probe *probe, const char *format, ...) {
    if (probe->verdict == VERDICT_FAIL) return;
    va_list arguments;
    va_start(arguments, format);
    say(probe, VERDICT_FAIL, format, arguments);
    va_end(arguments);
}

void probe_skip(struct probe *probe, const char *format, ...) {
    if (probe->verdict != VERDICT_PASS) return;
    va_list arguments;
    va_start(arguments, format);
    say(probe, VERDICT_SKIPPED, format, arguments);
    va_end(arguments);
}

const struct probe *verdicts_failed(const struct verdicts *verdicts, const char *subject) {
    const size_t n = subject != NULL ? strlen(subject) : 0;
    for (size_t i = 0; i < verdicts->n; i++) {
        const struct probe *probe = &verdicts->probes[i];
        if (probe->verdict != VERDICT_FAIL) continue;
        if (n == 0 || (strncmp(probe->name, subject, n) == 0 && probe->name[n] == '.'))
            return probe;
    }
    return NULL;
}

void verdicts_merge(struct verdicts *verdicts, const struct verdicts *from) {
    for (size_t i = 0; i < from->n; i++) {
        const struct probe *probe = &from->probes[i];
        struct probe *own = probe_named(verdicts, probe->name);
        own->positions += probe->positions;
        if (probe->verdict == VERDICT_FAIL) probe_fail(own, "%s", probe->words);
        if (probe->verdict == VERDICT_SKIPPED) probe_skip(own, "%s", probe->words);
    }
}

const char *verdict_name(enum verdict verdict) {
    static const char *const names[] = {"pass", "fail", "skipped"};
    return names[verdict];
}

void verdicts_print(const struct verdicts *verdicts) {
    for (size_t i = 0; i < verdicts->n; i++) {
        const struct probe *probe = &verdicts->probes[i];
        char count[TEXT_COMMAS_BYTES];
        (void)printf("  %-28s %-8s %12s%s%s\n", probe->name,
                     probe->verdict == VERDICT_FAIL ? "FAIL" : verdict_name(probe->verdict),
                     text_with_commas(probe->positions, count), probe->words[0] != '\0' ? "  " : "",
                     probe->words);
    }
}

cJSON *verdicts_json(const struct verdicts *verdicts) {
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < verdicts->n; i++) {
        const struct probe *probe = &verdicts->probes[i];
        cJSON *object = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(object, "probe", probe->name);
        (void)cJSON_AddStringToObject(object, "verdict", verdict_name(probe->verdict));
        (void)cJSON_AddNumberToObject(object, "positions", (double)probe->positions);
        if (probe->words[0] != '\0') (void)cJSON_AddStringToObject(object, "why", probe->words);
        (void)cJSON_AddItemToArray(list, object);
    }
    return list;
}
