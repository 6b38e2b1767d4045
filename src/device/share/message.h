/* message.h - the numbers and strings of 9P messages: little-endian, a string
 * with its 16-bit length before it. Running over an end is remembered, and all
 * that follows is zero or left out. */
#ifndef LODGE_DEVICE_SHARE_MESSAGE_H
#define LODGE_DEVICE_SHARE_MESSAGE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

struct writer {
    uint8_t *start;
    size_t used, room;
    bool full;
};

uint8_t read_u8(struct reader *reader);
uint16_t read_u16(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);
/* A string of less than size bytes without NUL; otherwise the message is bad. */
void read_text(struct reader *reader, char *text, size_t size);
/* One component of a path: not empty, no slash, neither "." nor "..". */
void read_name(struct reader *reader, char name[NAME_MAX + 1]);
/* The next size bytes, or NULL. */
const uint8_t *read_bytes(struct reader *reader, size_t size);

void write_u8(struct writer *writer, uint8_t value);
void write_u16(struct writer *writer, uint16_t value);
void write_u32(struct writer *writer, uint32_t value);
void write_u64(struct writer *writer, uint64_t value);
void write_text(struct writer *writer, const char *text);
/* Room for size bytes, or NULL. */
uint8_t *write_space(struct writer *writer, size_t size);

#endif
