/* field.h - JSON into structs by table: one row names a field, its type, its
 * bounds and where it goes. A value of a wrong type or out of bounds gives one
 * line with the field's path ("linux.namespaces[2].type: ..."). Names without a
 * row are ignored, as the OCI specification asks (config.md, Extensibility). */
#ifndef LODGE_CONTAINER_FIELD_H
#define LODGE_CONTAINER_FIELD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum field_kind {
    FIELD_STRING,   /* const char * */
    FIELD_BOOL,     /* bool */
    FIELD_INTEGER,  /* struct integer, within [min, max] */
    FIELD_WORD,     /* int: the index in words */
    FIELD_STRINGS,  /* LIST(const char *), NULL after the last one */
    FIELD_INTEGERS, /* LIST(struct integer) */
    FIELD_OBJECT,   /* a pointer to a struct of size bytes, NULL when absent */
    FIELD_LIST,     /* LIST of structs of size bytes */
    FIELD_MAP,      /* LIST(struct pair): an object of strings */
    FIELD_KEYED,    /* LIST of structs whose first member, const char *, is the key */
};

enum { FIELD_REQUIRED = 1 };

struct field {
    const char *name; /* NULL ends a table */
    enum field_kind kind;
    size_t offset;
    unsigned flags;
    int64_t min, max;           /* FIELD_INTEGER(S); both 0: any number */
    const char *const *words;   /* FIELD_WORD; NULL ends them */
    const struct field *fields; /* FIELD_OBJECT, FIELD_LIST, FIELD_KEYED */
    size_t size;
};

struct integer {
    int64_t value; /* saturated: JSON's unsigned 64-bit numbers end at INT64_MAX */
    bool given;
};

struct pair {
    const char *key;
    const char *value;
};

/* All lists have the same layout, whatever they hold. */
#define LIST(type)                                                                                 \
    struct {                                                                                       \
        type *items;                                                                               \
        size_t count;                                                                              \
    }

#define FOR_EACH(item, list)                                                                       \
    for (__typeof__((list).items + 0) item = (list).items;                                         \
         item && item < (list).items + (list).count; item++)

/* What was read: the text's own strings stay in the tree, structs in blocks. */
struct field_store {
    json_t *tree;
    struct field_block *blocks;
};

/* Parse text of length bytes into the zeroed struct at target. The result
 * lives until field_release. name is put before the path in errors. */
int field_read(struct field_store *store, const char *text, size_t length, const char *name,
               const struct field *fields, void *target, struct error *err);
void field_release(struct field_store *store);

/* size zeroed bytes that live as long as the store; NULL when out of memory. */
void *field_allocate(struct field_store *store, size_t size);

#endif
