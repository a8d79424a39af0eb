#include "seat_notes.h"

#include <string.h>

#include "cache_process.h"

enum { NOTE_LOG = 1, NOTE_EFFECT = 2, LONGEST_TEXT = 1000 };

struct note {
    uint32_t kind, level, length; /* of the text that follows, without a NUL */
    uint32_t reserved;
    double size;
};

static void append(uint8_t *notes, uint32_t *used, uint32_t room, struct note note,
                   const char *text) {
    const size_t length = strnlen(text, LONGEST_TEXT);
    if (length + sizeof note > room - *used) return;
    note.length = (uint32_t)length;
    memcpy(notes + *used, &note, sizeof note);
    memcpy(notes + *used + sizeof note, text, length);
    *used += (uint32_t)(sizeof note + length);
}

void seat_note_log(uint8_t *notes, uint32_t *used, uint32_t room, uint32_t level,
                   const char *message) {
    append(notes, used, room, (struct note){.kind = NOTE_LOG, .level = level}, message);
}

void seat_note_effect(uint8_t *notes, uint32_t *used, uint32_t room, const char *name,
                      double size) {
    append(notes, used, room, (struct note){.kind = NOTE_EFFECT, .size = size}, name);
}

static void tell(const struct note *note, const char *text, const fw_host *host) {
    if (note->kind == NOTE_LOG)
        host->log(host, note->level <= FW_LOG_ERROR ? note->level : FW_LOG_ERROR, text);
    else if (note->kind == NOTE_EFFECT && FW_HAS(host, effect))
        host->effect(host, text, note->size);
}

void seat_notes_tell(const uint8_t *notes, uint32_t bytes, const fw_host *host) {
    struct note note;
    char text[LONGEST_TEXT + 1];
    for (uint32_t at = 0; bytes - at >= sizeof note; at += note.length) {
        memcpy(&note, notes + at, sizeof note);
        at += (uint32_t)sizeof note;
        if (note.length > LONGEST_TEXT || note.length > bytes - at) return;
        memcpy(text, notes + at, note.length);
        text[note.length] = '\0';
        cache_process_clean(text);
        tell(&note, text, host);
    }
}
