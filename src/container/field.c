#include "container/field.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct field_block {
    struct field_block *next;
    max_align_t bytes[];
};

/* Where the reader is; the links of one path live on the stack. */
struct place {
    const struct place *outer;
    const char *name; /* NULL: an element */
    size_t index;
};

typedef LIST(char) any_list;

/* More elements than any sane file has; bounds what a hostile one can cost. */
enum { LIST_MAX = 1 << 16 };

static size_t place_print(const struct place *place, char *text, size_t size)
{
    size_t used = place->outer ? place_print(place->outer, text, size) : 0;
    int n;

    if (used >= size)
        return used;
    if (place->name)
        n = snprintf(text + used, size - used, "%s%.64s", place->outer ? "." : "", place->name);
    else
        n = snprintf(text + used, size - used, "[%zu]", place->index);
    return used + (size_t)MAX(n, 0);
}

static int field_wrong(const struct place *place, const char *what, struct error *err)
{
    char path[256];

    place_print(place, path, sizeof(path));
    return error_set(err, EINVAL, "%s: %s", path, what);
}

static const char *json_kind(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

static int field_mistyped(const struct place *place, const char *wanted, const json_t *value,
                          struct error *err)
{
    char what[80];

    snprintf(what, sizeof(what), "must be %s, but is %s", wanted, json_kind(value));
    return field_wrong(place, what, err);
}

void *field_allocate(struct field_store *store, size_t size)
{
    struct field_block *block = calloc(1, sizeof(*block) + size);

    if (!block)
        return NULL;
    block->next = store->blocks;
    store->blocks = block;
    return block->bytes;
}

void field_release(struct field_store *store)
{
    for (struct field_block *block = store->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    json_decref(store->tree);
    *store = (struct field_store){0};
}

static int struct_read(struct field_store *store, const json_t *object, const struct place *place,
                       const struct field *fields, void *target, struct error *err);

static int integer_read(const json_t *value, const struct place *place, const struct field *field,
                        struct integer *integer, struct error *err)
{
    char what[80];
    int64_t number;

    if (json_is_integer(value)) {
        number = json_integer_value(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);

        number = real >= 0x1p63 ? INT64_MAX : real < -0x1p63 ? INT64_MIN : (int64_t)real;
        if (number > INT64_MIN && number < INT64_MAX && (double)number != real)
            return field_mistyped(place, "a whole number", value, err);
    } else {
        return field_mistyped(place, "a whole number", value, err);
    }
    if ((field->min || field->max) && (number < field->min || number > field->max)) {
        snprintf(what, sizeof(what), "%lld is not within %lld to %lld", (long long)number,
                 (long long)field->min, (long long)field->max);
        return field_wrong(place, what, err);
    }
    *integer = (struct integer){.value = number, .given = true};
    return 0;
}

static int word_read(const json_t *value, const struct place *place, const struct field *field,
                     int *word, struct error *err)
{
    char what[120];

    if (!json_is_string(value))
        return field_mistyped(place, "a string", value, err);
    for (int i = 0; field->words[i]; i++) {
        if (strcmp(field->words[i], json_string_value(value)) == 0) {
            *word = i;
            return 0;
        }
    }
    snprintf(what, sizeof(what), "\"%.64s\" is not a value this field has",
             json_string_value(value));
    return field_wrong(place, what, err);
}

static int strings_read(const json_t *array, const struct place *place, const char **items,
                        struct error *err)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const struct place at = {.outer = place, .index = i};
        const json_t *value = json_array_get(array, i);

        if (!json_is_string(value))
            return field_mistyped(&at, "a string", value, err);
        items[i] = json_string_value(value);
    }
    return 0;
}

static int integers_read(const json_t *array, const struct place *place, const struct field *field,
                         struct integer *items, struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < json_array_size(array) && r == 0; i++) {
        const struct place at = {.outer = place, .index = i};
        r = integer_read(json_array_get(array, i), &at, field, items + i, err);
    }
    return r;
}

static int structs_read(struct field_store *store, const json_t *array, const struct place *place,
                        const struct field *field, char *items, struct error *err)
{
    int r = 0;

    for (size_t i = 0; i < json_array_size(array) && r == 0; i++) {
        const struct place at = {.outer = place, .index = i};
        r = struct_read(store, json_array_get(array, i), &at, field->fields,
                        items + i * field->size, err);
    }
    return r;
}

/* An object whose names are data: FIELD_MAP and FIELD_KEYED. */
static int keyed_read(struct field_store *store, json_t *object, const struct place *place,
                      const struct field *field, char *items, struct error *err)
{
    const char *key;
    json_t *value;
    int r = 0;

    json_object_foreach(object, key, value)
    {
        const struct place at = {.outer = place, .name = key};

        *(const char **)(void *)items = key;
        if (field->kind == FIELD_KEYED) {
            r = struct_read(store, value, &at, field->fields, items, err);
            items += field->size;
        } else if (json_is_string(value)) {
            ((struct pair *)(void *)items)->value = json_string_value(value);
            items += sizeof(struct pair);
        } else {
            r = field_mistyped(&at, "a string", value, err);
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int list_read(struct field_store *store, json_t *value, const struct place *place,
                     const struct field *field, any_list *list, struct error *err)
{
    bool keyed = field->kind == FIELD_MAP || field->kind == FIELD_KEYED;
    size_t size = field->kind == FIELD_STRINGS    ? sizeof(char *)
                  : field->kind == FIELD_INTEGERS ? sizeof(struct integer)
                  : field->kind == FIELD_MAP      ? sizeof(struct pair)
                                                  : field->size;
    size_t count;
    int r;

    if (keyed ? !json_is_object(value) : !json_is_array(value))
        return field_mistyped(place, keyed ? "an object" : "an array", value, err);
    count = keyed ? json_object_size(value) : json_array_size(value);
    if (count > LIST_MAX)
        return field_wrong(place, "has more than 65536 elements", err);
    /* One more than needed: lists of strings end with NULL, ready for execve. */
    list->items = field_allocate(store, (count + 1) * size);
    if (!list->items)
        return error_set(err, ENOMEM, "out of memory");
    if (field->kind == FIELD_STRINGS)
        r = strings_read(value, place, (const char **)(void *)list->items, err);
    else if (field->kind == FIELD_INTEGERS)
        r = integers_read(value, place, field, (struct integer *)(void *)list->items, err);
    else if (field->kind == FIELD_LIST)
        r = structs_read(store, value, place, field, list->items, err);
    else
        r = keyed_read(store, value, place, field, list->items, err);
    list->count = count;
    return r;
}

static int value_read(struct field_store *store, json_t *value, const struct place *place,
                      const struct field *field, void *target, struct error *err)
{
    switch (field->kind) {
    case FIELD_STRING:
        if (!json_is_string(value))
            return field_mistyped(place, "a string", value, err);
        *(const char **)target = json_string_value(value);
        return 0;
    case FIELD_BOOL:
        if (!json_is_boolean(value))
            return field_mistyped(place, "a boolean", value, err);
        *(bool *)target = json_is_true(value);
        return 0;
    case FIELD_INTEGER:
        return integer_read(value, place, field, target, err);
    case FIELD_WORD:
        return word_read(value, place, field, target, err);
    case FIELD_OBJECT: {
        void *object = field_allocate(store, field->size);
        if (!object)
            return error_set(err, ENOMEM, "out of memory");
        *(void **)target = object;
        return struct_read(store, value, place, field->fields, object, err);
    }
    default:
        return list_read(store, value, place, field, target, err);
    }
}

/* place is NULL for the file itself. */
static int struct_read(struct field_store *store, const json_t *object, const struct place *place,
                       const struct field *fields, void *target, struct error *err)
{
    if (!json_is_object(object))
        return field_mistyped(place, "an object", object, err);
    for (const struct field *field = fields; field->name; field++) {
        const struct place at = {.outer = place, .name = field->name};
        json_t *value = json_object_get(object, field->name);
        int r;

        /* Go programs write null for what is empty. */
        if (!value || json_is_null(value)) {
            if (field->flags & FIELD_REQUIRED)
                return field_wrong(&at, "is required, but missing", err);
            continue;
        }
        r = value_read(store, value, &at, field, (char *)target + field->offset, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int field_read(struct field_store *store, const char *text, size_t length, const char *name,
               const struct field *fields, void *target, struct error *err)
{
    json_error_t wrong;
    json_t *tree = json_loadb(text, length, 0, &wrong);
    int r;

    /* RLIM_INFINITY and its like do not fit json_int_t. Read them as reals, which saturate. */
    if (!tree && json_error_code(&wrong) == json_error_numeric_overflow)
        tree = json_loadb(text, length, JSON_DECODE_INT_AS_REAL, &wrong);
    if (!tree)
        return error_set(err, EINVAL, "%s: line %d, column %d: %s", name, wrong.line, wrong.column,
                         wrong.text);
    *store = (struct field_store){.tree = tree};
    if (json_is_object(tree))
        r = struct_read(store, tree, NULL, fields, target, err);
    else
        r = error_set(err, EINVAL, "must be an object, but is %s", json_kind(tree));
    if (r < 0) {
        error_prepend(err, "%s", name);
        field_release(store);
    }
    return r;
}
