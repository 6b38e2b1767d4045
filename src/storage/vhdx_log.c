#include "storage/vhdx_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "storage/import.h"
#include "storage/vec.h"

enum { SECTOR = 4 << 10, LOG_UNIT = 1 << 20 };

#define CHECKSUM_AT 4 /* in all that has a checksum */

/* An entry's header, and behind it descriptors; then a sector of data for each that has some. */
enum {
    AT_LENGTH = 8,
    AT_TAIL = 12,
    AT_SEQUENCE = 16,
    AT_COUNT = 24,
    AT_GUID = 32,
    AT_FLUSHED = 48, /* the file was at least that long when the entry was written */
    AT_LAST = 56,    /* and this long with all that it refers to */
    ENTRY_HEADER = 64,
};
enum {
    AT_TRAILING = 4, /* the data sector's last four bytes */
    AT_LEADING = 8,  /* and its first eight; or the length of zeroes */
    AT_PLACE = 16,
    AT_OWN_SEQUENCE = 24,
    DESCRIPTOR_LENGTH = 32,
};
/* A sector of data: its signature and both halves of the sequence take the place of bytes
 * that the descriptor has. */
enum { DATA_HIGH = 4, DATA_FIRST = 8, DATA_LOW = 4092 };

#define WORK_MAX    16    /* times the log's length: how much of it is looked at in all */
#define CHANGES_MAX 65536 /* far more than a log has sectors */

/* The log; twice in a row, so that an entry that wraps is in one piece. */
struct ring {
    const uint8_t *data;
    uint32_t length;
    const uint8_t *guid;
    uint64_t work; /* bytes that may still be looked at */
};

/* Entries one behind the other, oldest first. */
struct sequence {
    uint32_t tail, end; /* where the oldest begins; behind the newest, counted from tail's turn */
    uint64_t number;    /* the newest one's; 0: no entry */
    bool whole;         /* the newest one's tail is in it */
};

/* Bytes that differ from the file's. */
struct change {
    uint64_t offset, length;
    uint8_t *data; /* a sector, or NULL: zeroes */
};

struct replayed {
    struct change *changes; /* in the order of the log */
    size_t count;
    uint64_t low, high; /* all are within */
};

uint32_t vhdx_checksum(const uint8_t *data, size_t length)
{
    static const uint32_t of_half_byte[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    uint32_t crc = UINT32_MAX;

    for (size_t at = 0; at < length; at += 4) {
        crc ^= at == CHECKSUM_AT ? 0 : load_le32(data + at);
        for (unsigned i = 0; i < 8; i++)
            crc = crc >> 4 ^ of_half_byte[crc & 15];
    }
    return ~crc;
}

/* --- Finding the sequence --- */

/* The entry at a place of the ring, or NULL. sequence: the number it must have, 0: any. */
static const uint8_t *find_entry(struct ring *ring, uint32_t at, uint64_t sequence)
{
    const uint8_t *entry = ring->data + at;
    const uint32_t length = load_le32(entry + AT_LENGTH), count = load_le32(entry + AT_COUNT);
    const uint64_t number = load_le64(entry + AT_SEQUENCE);

    if (memcmp(entry, "loge", 4) || memcmp(entry + AT_GUID, ring->guid, 16))
        return NULL;
    if (!length || length > ring->length || length % SECTOR || load_le32(entry + AT_TAIL) % SECTOR)
        return NULL;
    if (!number || (sequence && number != sequence))
        return NULL;
    if (count > (length - ENTRY_HEADER) / DESCRIPTOR_LENGTH || length > ring->work)
        return NULL;
    ring->work -= length;
    return vhdx_checksum(entry, length) == load_le32(entry + CHECKSUM_AT) ? entry : NULL;
}

static struct sequence follow(struct ring *ring, uint32_t tail)
{
    struct sequence s = {.tail = tail, .end = tail};
    const uint8_t *entry = find_entry(ring, tail, 0);

    while (entry) {
        const uint32_t oldest = load_le32(entry + AT_TAIL);
        const uint32_t from_tail = (oldest + ring->length - tail) % ring->length;

        s.end += load_le32(entry + AT_LENGTH);
        s.number = load_le64(entry + AT_SEQUENCE);
        s.whole = oldest < ring->length && from_tail < s.end - tail;
        if (s.end - tail >= ring->length)
            break; /* it would be the first again */
        entry = find_entry(ring, s.end % ring->length, s.number + 1);
    }
    return s;
}

/* Section 2.3.3: the whole sequence with the highest number. */
static struct sequence find_active(struct ring *ring)
{
    struct sequence best = {0};
    uint32_t at = 0;

    while (at < ring->length) {
        struct sequence s = follow(ring, at);

        if (s.whole && s.number > best.number)
            best = s;
        at = s.number ? s.end : at + SECTOR;
    }
    return best;
}

/* --- Taking it in --- */

static struct change *add_change(struct replayed *replayed, uint64_t offset, uint64_t length)
{
    struct change *grown;

    if (replayed->count >= CHANGES_MAX)
        return NULL;
    if ((replayed->count & (replayed->count - 1)) == 0) { /* full: powers of two */
        grown = realloc(replayed->changes, MAX(1, 2 * replayed->count) * sizeof(*grown));
        if (!grown)
            return NULL;
        replayed->changes = grown;
    }
    replayed->low = replayed->count ? MIN(replayed->low, offset) : offset;
    replayed->high = MAX(replayed->high, offset + length);
    replayed->changes[replayed->count] = (struct change){.offset = offset, .length = length};
    return &replayed->changes[replayed->count++];
}

/* One descriptor; *sector: the next one of the entry's data. False: it is damaged. */
static bool take_descriptor(struct replayed *replayed, const uint8_t *entry,
                            const uint8_t *descriptor, const uint8_t **sector)
{
    const uint8_t *end = entry + load_le32(entry + AT_LENGTH), *data = *sector;
    const uint64_t number = load_le64(entry + AT_SEQUENCE),
                   place = load_le64(descriptor + AT_PLACE);
    const bool zeroes = !memcmp(descriptor, "zero", 4);
    const uint64_t length = zeroes ? load_le64(descriptor + AT_LEADING) : SECTOR;
    struct change *change;

    if ((!zeroes && memcmp(descriptor, "desc", 4)) || place % SECTOR || length % SECTOR ||
        length > INT64_MAX || place > INT64_MAX - length ||
        load_le64(descriptor + AT_OWN_SEQUENCE) != number)
        return false;
    if (!zeroes && (end - data < SECTOR || memcmp(data, "data", 4) ||
                    load_le32(data + DATA_HIGH) != number >> 32 ||
                    load_le32(data + DATA_LOW) != (uint32_t)number))
        return false;
    change = add_change(replayed, place, length);
    if (!change || zeroes)
        return change;
    change->data = malloc(SECTOR);
    if (!change->data)
        return false;
    memcpy(change->data, data, SECTOR);
    memcpy(change->data, descriptor + AT_LEADING, DATA_FIRST);
    memcpy(change->data + DATA_LOW, descriptor + AT_TRAILING, SECTOR - DATA_LOW);
    *sector = data + SECTOR;
    return true;
}

/* The entries from the tail that the newest one names. */
static int take_sequence(struct disk *disk, const struct ring *ring, struct sequence s,
                         struct error *err)
{
    struct replayed *replayed = disk->state;
    const uint8_t *newest = ring->data + s.tail, *entry;
    uint32_t skip;

    for (uint32_t at = s.tail; at < s.end; at += load_le32(newest + AT_LENGTH))
        newest = ring->data + at % ring->length;
    skip = (load_le32(newest + AT_TAIL) + ring->length - s.tail) % ring->length;
    if (load_le64(newest + AT_FLUSHED) > disk->file->size)
        return error_set(err, EINVAL, "%s is shorter than its log says", disk->path);
    for (uint32_t at = s.tail; at < s.end; at += load_le32(entry + AT_LENGTH)) {
        const uint32_t count = load_le32(ring->data + at % ring->length + AT_COUNT);
        const uint32_t described = ENTRY_HEADER + count * DESCRIPTOR_LENGTH;
        const uint8_t *sector;

        entry = ring->data + at % ring->length;
        sector = entry + (described + SECTOR - 1) / SECTOR * SECTOR;
        for (uint32_t i = 0; i < count && at - s.tail >= skip; i++)
            if (!take_descriptor(replayed, entry, entry + ENTRY_HEADER + i * DESCRIPTOR_LENGTH,
                                 &sector))
                return error_set(err, EINVAL, "%s: its log is damaged", disk->path);
    }
    disk->size = MAX(disk->file->size, MIN(load_le64(newest + AT_LAST), INT64_MAX));
    return 0;
}

/* --- The file with its changes --- */

static int replayed_read(struct disk *disk, uint64_t offset, const struct iovec *iov,
                         unsigned count, uint64_t length)
{
    const struct replayed *replayed = disk->state;
    int r = disk_readv(disk->file, offset, iov, count);

    if (r < 0 || offset >= replayed->high || offset + length <= replayed->low)
        return r;
    for (size_t i = 0; i < replayed->count; i++) {
        const struct change *change = &replayed->changes[i];
        const uint64_t from = MAX(offset, change->offset);
        const uint64_t to = MIN(offset + length, change->offset + change->length);

        if (from >= to)
            continue;
        if (change->data)
            vec_from(iov, count, from - offset, change->data + (from - change->offset), to - from);
        else
            vec_fill(iov, count, from - offset, 0, to - from);
    }
    return 0;
}

static int replayed_close(struct disk *disk, struct error *err)
{
    struct replayed *replayed = disk->state;

    (void)err;
    for (size_t i = 0; i < replayed->count; i++)
        free(replayed->changes[i].data);
    free(replayed->changes);
    free(replayed);
    return 0;
}

static const struct disk_format replayed_protocol = {
    .name = "vhdx log",
    .summary = "a VHDX file and its log",
    .read = replayed_read,
    .close = replayed_close,
};

void vhdx_log_forget(struct disk *replayed)
{
    replayed_close(replayed, NULL);
    disk_free(replayed);
}

int vhdx_log_replay(struct disk *file, uint64_t offset, uint32_t length, const uint8_t guid[16],
                    struct disk **ret_replayed, struct error *err)
{
    AUTO_FREE uint8_t *data = NULL;
    struct ring ring = {.length = length, .guid = guid, .work = (uint64_t)length * WORK_MAX};
    struct sequence active;
    struct disk *disk;
    int r;

    if (!length || length % LOG_UNIT || length > IMPORT_TABLE_MAX || offset > file->size ||
        length > file->size - offset)
        return error_set(err, EINVAL, "%s: its log is not in the file, or too large", file->path);
    data = malloc(2 * (size_t)length);
    disk = disk_new(file->storage, &replayed_protocol, file->path, false);
    if (disk)
        disk->state = calloc(1, sizeof(struct replayed));
    if (!data || !disk || !disk->state) {
        disk_free(disk);
        return error_set(err, ENOMEM, "out of memory for a log");
    }
    disk->file = file;
    r = disk_read(file, offset, data, length);
    if (r < 0)
        error_system(err, -r, "%s: cannot read its log", file->path);
    if (r == 0) {
        memcpy(data + length, data, length);
        ring.data = data;
        active = find_active(&ring);
        r = active.number ? take_sequence(disk, &ring, active, err)
                          : error_set(err, EINVAL, "%s: its log is damaged", file->path);
    }
    if (r < 0)
        vhdx_log_forget(disk);
    else
        *ret_replayed = disk;
    return r;
}
