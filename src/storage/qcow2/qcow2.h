/* qcow2.h - the parts of the qcow2 format (private to this folder). Words are
 * those of its specification (docs/interop/qcow2.txt of QEMU).
 *
 * header.c    the header and its extensions
 * cache.c     tables of one cluster, kept in memory: L2 tables, refcount blocks
 * refcount.c  refcounts; allocating and freeing clusters
 * mapping.c   from guest offsets to clusters, through L1 and L2 tables
 * data.c      reading, writing, discarding and zeroing by these
 * compress.c  compressed clusters
 * snapshot.c  internal snapshots; the refcounts of whole trees
 * check.c     consistency, and repair
 * resize.c    the size of the disk
 * qcow2.c     opening, flushing, closing, and the table of functions
 *
 * Order of writes. What a crash leaves must be clean, or have only leaks, and
 * keep everything that was flushed. So metadata changes in memory only, and
 * qcow2_write_back brings it to the file in epochs with a flush between each:
 *   1. guest data, new tables' first content, refcounts that grew
 *   2. L2 tables and the L1 table, which refer to these
 *   3. only then are clusters that nothing refers to any more given up: their
 *      refcounts fall and they can be allocated again.
 * With lazy refcounts the refcounts of 1 are not written; the dirty bit is set
 * instead, and refcounts are made anew when the image is opened after a crash.
 *
 * Locks: `lock` is held around all that looks at or changes metadata; tables of
 * the caches stay valid while it is held. Ranges of guest data are held in
 * `ranges` while they are read, written or remapped. Ranges are taken first. */
#ifndef LODGE_STORAGE_QCOW2_H
#define LODGE_STORAGE_QCOW2_H

#include "storage/format.h"
#include "storage/range_lock.h"

#define QCOW2_MAGIC 0x514649fb /* "QFI\xfb" */

/* Limits on what a file may ask for; QEMU's, so that what it takes is taken. */
#define QCOW2_L1_MAX        (32u << 20) /* bytes */
#define QCOW2_REFTABLE_MAX  (8u << 20)  /* bytes */
#define QCOW2_SNAPSHOTS_MAX 65536
#define QCOW2_BACKING_MAX   1023

enum { QCOW2_CLUSTER_BITS_MIN = 9, QCOW2_CLUSTER_BITS_MAX = 21 };
enum { QCOW2_SUBCLUSTERS = 32 }; /* of a cluster, with extended L2 entries */

/* Incompatible features */
#define QCOW2_DIRTY            (1ull << 0)
#define QCOW2_CORRUPT          (1ull << 1)
#define QCOW2_DATA_FILE        (1ull << 2)
#define QCOW2_COMPRESSION_TYPE (1ull << 3)
#define QCOW2_EXTENDED_L2      (1ull << 4)
/* Compatible features */
#define QCOW2_LAZY_REFCOUNTS (1ull << 0)

/* L1 and L2 entries */
#define QCOW2_COPIED      (1ull << 63) /* the refcount is exactly one: may be written in place */
#define QCOW2_COMPRESSED  (1ull << 62)
#define QCOW2_ZERO        (1ull << 0) /* standard L2 entries of version 3 */
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull

/* Offsets of header fields that are changed in place; all are in the first sector. */
enum {
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_OFFSET = 40,
    QCOW2_AT_REFTABLE_OFFSET = 48,
    QCOW2_AT_REFTABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOT_COUNT = 60,
    QCOW2_AT_SNAPSHOTS_OFFSET = 64,
    QCOW2_AT_INCOMPATIBLE = 72,
    QCOW2_SECTOR = 512,
};

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

struct qcow2_header {
    unsigned version;
    unsigned cluster_bits;
    uint64_t size; /* of the guest's disk */
    uint32_t encryption;
    uint32_t l1_size; /* entries */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    unsigned refcount_order; /* refcounts have 1 << order bits */
    uint32_t length;
    enum qcow2_compression compression;
    char backing[QCOW2_BACKING_MAX + 1]; /* "": none */
    char backing_format[16];
    uint8_t *kept; /* extensions that we do not know, as they are: written back */
    uint32_t kept_length;
};

/* --- Tables in memory --- */

struct table {
    uint64_t offset; /* in the file; 0: this place is unused */
    uint8_t *data;   /* a cluster, big-endian as in the file */
    bool dirty;
    struct table *hash_next;
    struct table *newer, *older;
};

struct cache {
    struct table **buckets;
    unsigned bucket_count; /* a power of two */
    unsigned count, max;   /* tables */
    unsigned dirty;        /* how many are */
    struct table *newest, *oldest;
};

/* Something that a cluster's range counts for and soon will not. */
struct pending_free {
    uint64_t offset, length;
};

struct qcow2 {
    struct disk *disk, *file;
    struct qcow2_header header;
    uint32_t cluster_size;
    unsigned l2_entry_size;   /* 8, or 16 with extended entries */
    unsigned l2_bits;         /* an L2 table has 1 << l2_bits entries */
    uint32_t subcluster_size; /* the cluster size without extended entries */
    unsigned block_bits;      /* a refcount block has 1 << block_bits refcounts */

    uint64_t *l1; /* native byte order; header.l1_size entries */
    bool l1_dirty;
    uint64_t *reftable; /* native byte order */
    uint32_t reftable_entries;
    struct cache l2_cache, block_cache;

    uint64_t free_hint;  /* cluster index: no free one below */
    uint64_t fresh_from; /* cluster index: from here on the file was never written */
    uint64_t packed_at;  /* where the next compressed cluster may go, 0: nowhere begun */
    struct pending_free *pending;
    unsigned pending_count, pending_max;
    bool pending_lost; /* no memory to note one: it leaks */

    struct fiber_lock lock;
    struct range_locks ranges;
    bool broken; /* corruption was seen: no more writes */
};

static inline uint64_t qcow2_cluster_start(const struct qcow2 *q, uint64_t offset)
{
    return offset & ~(uint64_t)(q->cluster_size - 1);
}

/* --- header.c --- */

int qcow2_header_read(struct disk *file, struct qcow2_header *ret_header, struct error *err);
void qcow2_header_free(struct qcow2_header *header);
/* Write the whole header with its extensions into the first cluster. */
int qcow2_header_write(struct disk *file, const struct qcow2_header *header, struct error *err);
/* Write the fields of header that are changed in place: one sector, so all or nothing. */
int qcow2_header_update(struct qcow2 *q);
bool qcow2_probe(const uint8_t *head, size_t length);
int qcow2_create(struct disk *file, const struct disk_create_options *options, struct error *err);

/* --- cache.c --- */

int cache_init(struct cache *cache, unsigned max);
void cache_free(struct cache *cache);
struct table *cache_find(struct cache *cache, uint64_t offset);
/* The table at offset, read from the file unless fresh (then zeroed). May write back
 * everything to make room. */
int cache_get(struct qcow2 *q, struct cache *cache, uint64_t offset, bool fresh,
              struct table **ret_table);
void cache_dirty(struct cache *cache, struct table *table);
/* Forget it, as its cluster is not a table any more. */
void cache_drop(struct cache *cache, uint64_t offset);
void cache_drop_all(struct cache *cache);
int cache_write_back(struct qcow2 *q, struct cache *cache);

/* --- refcount.c --- */

int refcount_load_table(struct qcow2 *q, struct error *err);
uint64_t refcount_read(const uint8_t *block, unsigned order, uint64_t index);
void refcount_write(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *ret_count);
/* Add delta to the refcounts of the clusters that the range touches. -ERANGE: it has too few
 * bits; -EIO: below zero. */
int refcount_change(struct qcow2 *q, uint64_t offset, uint64_t length, int delta);
/* count clusters in a row, with refcount 1. */
int clusters_allocate(struct qcow2 *q, uint64_t count, uint64_t *ret_offset);
/* As many in a row as there are at the first free place, at most *count.
 * ret_fresh: the file was never written there and reads as zeroes. */
int clusters_allocate_some(struct qcow2 *q, uint64_t *count, uint64_t *ret_offset, bool *ret_fresh);
/* Give up what was allocated and nothing in the file refers to. */
void clusters_release(struct qcow2 *q, uint64_t offset, uint64_t count);
/* Let the range go one time, once the file no longer refers to it. */
void clusters_free_later(struct qcow2 *q, uint64_t offset, uint64_t length);
/* Do that now: the file does not refer to them. */
int clusters_free_pending(struct qcow2 *q);
/* Space for a compressed cluster. */
int bytes_allocate(struct qcow2 *q, uint32_t length, uint64_t *ret_offset);

/* --- mapping.c --- */

enum mapping_kind {
    MAPPING_NONE, /* look into the backing file */
    MAPPING_ZERO,
    MAPPING_DATA,
    MAPPING_COMPRESSED,
};

struct mapping {
    enum mapping_kind kind;
    uint64_t host;   /* data: of the first byte; compressed: the descriptor;
                        none, zero: of the cluster that is kept for it, or 0 */
    uint64_t length; /* bytes alike from the offset, in a row in the file */
    bool in_place;   /* data: may be overwritten where it is */
};

int mapping_load_l1(struct qcow2 *q, struct error *err);
int mapping_write_l1(struct qcow2 *q);
/* What holds at a guest offset, for at most length bytes. */
int mapping_find(struct qcow2 *q, uint64_t offset, uint64_t length, struct mapping *ret_mapping);

/* An L2 entry; bitmap is 0 without extended entries. */
struct l2_entry {
    uint64_t value, bitmap;
};

struct l2_place {
    struct table *table; /* NULL: there is no table, all of it is unallocated */
    unsigned index;
};

/* The entry for a guest offset. writable: make the table ours first. */
int l2_find(struct qcow2 *q, uint64_t offset, bool writable, struct l2_place *ret_place);
struct l2_entry l2_read(const struct qcow2 *q, const struct l2_place *place);
void l2_write(struct qcow2 *q, const struct l2_place *place, struct l2_entry entry);
enum mapping_kind l2_kind(const struct qcow2 *q, struct l2_entry entry, unsigned subcluster);
/* Whether the entry can be: the host cluster is aligned and within bounds. */
int l2_check(struct qcow2 *q, struct l2_entry entry);
/* Let go later what an entry referred to. */
void l2_free_later(struct qcow2 *q, struct l2_entry entry);
/* Where a compressed descriptor's bytes are. */
void compressed_range(const struct qcow2 *q, uint64_t descriptor, uint64_t *ret_offset,
                      uint32_t *ret_length);

/* --- data.c --- */

int qcow2_read(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
               uint64_t length);
int qcow2_write(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count,
                uint64_t length);
int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t length);
int qcow2_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, unsigned flags);
int qcow2_map(struct disk *disk, uint64_t offset, struct disk_extent *ret_extent);
/* Make the range unallocated, whatever a backing file has there; whole clusters. */
int qcow2_drop_range(struct qcow2 *q, uint64_t offset, uint64_t length);

/* --- compress.c --- */

/* A cluster from a compressed one. -EIO when it is damaged. */
int qcow2_decompress(struct qcow2 *q, uint64_t descriptor, uint8_t *ret_cluster);
int qcow2_write_compressed(struct disk *disk, uint64_t offset, const void *data, size_t length);

/* --- snapshot.c --- */

struct snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint64_t size; /* of the disk then */
    struct image_snapshot facts;
    uint64_t nanoseconds, vm_clock, icount;
    uint64_t vm_state_size;
};

int snapshots_read(struct qcow2 *q, struct snapshot **ret_snapshots, unsigned *ret_count,
                   uint64_t *ret_table_length, struct error *err);
int qcow2_snapshot_create(struct disk *disk, const char *name, struct error *err);
int qcow2_snapshot_apply(struct disk *disk, const char *name, struct error *err);
int qcow2_snapshot_delete(struct disk *disk, const char *name, struct error *err);
int qcow2_snapshot_list(struct disk *disk, struct image_snapshot **ret_snapshots,
                        unsigned *ret_count, struct error *err);
int qcow2_empty(struct disk *disk, struct error *err);

/* --- check.c --- */

int qcow2_check(struct disk *disk, unsigned repair, struct image_check *ret_check,
                struct error *err);

/* --- resize.c --- */

int qcow2_resize(struct disk *disk, uint64_t size, struct error *err);
/* A new L1 table of entries, the first of them the have ones of l1, in the file and in the
 * header, with the header's other fields as they are now. The old table is given up, not
 * what it refers to. The caller holds the lock. */
int qcow2_replace_l1(struct qcow2 *q, const uint64_t *l1, uint32_t have, uint32_t entries);

/* --- qcow2.c --- */

/* Bring metadata to the file, in the order above. The caller holds the lock. */
int qcow2_write_back(struct qcow2 *q);
/* Before the first change of metadata: with lazy refcounts, sets the dirty bit. */
int qcow2_begin_change(struct qcow2 *q);
/* Say that the image is corrupt, in the file too. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q);
/* The L1 entries that a disk of this size needs. */
uint64_t qcow2_l1_needed(const struct qcow2 *q, uint64_t size);

#endif
