/* What a cache in a process of its own says besides its answers: lines for the log and sizes of
 * effects. They travel with the answer to the request under which they were said. */
#ifndef FAIRWAY_SEAT_NOTES_H
#define FAIRWAY_SEAT_NOTES_H

#include <fairway/host.h>

/* Append a note to `notes` of `room` bytes, `used` of them taken; what finds no room is dropped. */
void seat_note_log(uint8_t *notes, uint32_t *used, uint32_t room, uint32_t level,
                   const char *message);
void seat_note_effect(uint8_t *notes, uint32_t *used, uint32_t room, const char *name, double size);

/* Hand each of `bytes` bytes of notes to the host's services. They come from the child: what is
 * malformed ends the list, and what is not printable is replaced. */
void seat_notes_tell(const uint8_t *notes, uint32_t bytes, const fw_host *host);

#endif
