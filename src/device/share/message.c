#include "device/share/message.h"

#include <string.h>

#include "base/bytes.h"

const uint8_t *read_bytes(struct reader *reader, size_t size)
{
    const uint8_t *bytes = reader->at;

    if (reader->bad || size > reader->left) {
        reader->bad = true;
        return NULL;
    }
    reader->at += size;
    reader->left -= size;
    return bytes;
}

uint8_t read_u8(struct reader *reader)
{
    const uint8_t *bytes = read_bytes(reader, 1);

    return bytes ? *bytes : 0;
}

uint16_t read_u16(struct reader *reader)
{
    const uint8_t *bytes = read_bytes(reader, 2);

    return bytes ? load_le16(bytes) : 0;
}

uint32_t read_u32(struct reader *reader)
{
    const uint8_t *bytes = read_bytes(reader, 4);

    return bytes ? load_le32(bytes) : 0;
}

uint64_t read_u64(struct reader *reader)
{
    const uint8_t *bytes = read_bytes(reader, 8);

    return bytes ? load_le64(bytes) : 0;
}

void read_text(struct reader *reader, char *text, size_t size)
{
    size_t length = read_u16(reader);
    const uint8_t *bytes = read_bytes(reader, length);

    text[0] = 0;
    if (!bytes || length >= size || memchr(bytes, 0, length)) {
        reader->bad = true;
        return;
    }
    memcpy(text, bytes, length);
    text[length] = 0;
}

void read_name(struct reader *reader, char name[NAME_MAX + 1])
{
    read_text(reader, name, NAME_MAX + 1);
    if (!name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        reader->bad = true;
}

uint8_t *write_space(struct writer *writer, size_t size)
{
    uint8_t *at = writer->start + writer->used;

    if (writer->full || size > writer->room - writer->used) {
        writer->full = true;
        return NULL;
    }
    writer->used += size;
    return at;
}

void write_u8(struct writer *writer, uint8_t value)
{
    uint8_t *at = write_space(writer, 1);

    if (at)
        *at = value;
}

void write_u16(struct writer *writer, uint16_t value)
{
    uint8_t *at = write_space(writer, 2);

    if (at)
        store_le16(at, value);
}

void write_u32(struct writer *writer, uint32_t value)
{
    uint8_t *at = write_space(writer, 4);

    if (at)
        store_le32(at, value);
}

void write_u64(struct writer *writer, uint64_t value)
{
    uint8_t *at = write_space(writer, 8);

    if (at)
        store_le64(at, value);
}

void write_text(struct writer *writer, const char *text)
{
    size_t length = strlen(text);
    uint8_t *at;

    write_u16(writer, (uint16_t)length);
    at = write_space(writer, length);
    if (at)
        memcpy(at, text, length);
}
