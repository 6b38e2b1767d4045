#include "guest/seccomp.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "container/file.h"

enum { PROFILE_MAX = 512 << 10 };

/* src/guest/seccomp.json, by the linker. */
extern const char seccomp_json_start[] __asm__("_binary_src_guest_seccomp_json_start");
extern const char seccomp_json_end[] __asm__("_binary_src_guest_seccomp_json_end");

/* What this machine is called in profiles. */
static const char *const machines[] = {"amd64", "x86", "x32", NULL};
static const char machine[] = "SCMP_ARCH_X86_64";

json_t *seccomp_default(void)
{
    return json_loadb(seccomp_json_start, (size_t)(seccomp_json_end - seccomp_json_start), 0, NULL);
}

int seccomp_read(const char *path, json_t **ret_profile, struct error *err)
{
    AUTO_FREE char *text = NULL;
    json_error_t why;
    json_t *profile;
    int r = file_read(AT_FDCWD, path, PROFILE_MAX, &text, NULL, err);

    if (r < 0)
        return r;
    profile = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (!profile)
        return error_set(err, EINVAL, "the seccomp profile %.200s, line %d: %.100s", path, why.line,
                         why.text);
    if (!json_is_string(json_object_get(profile, "defaultAction"))) {
        json_decref(profile);
        return error_set(err, EINVAL, "the seccomp profile %.200s has no defaultAction", path);
    }
    *ret_profile = profile;
    return 0;
}

static bool array_has(const json_t *array, const char *text)
{
    const json_t *item;
    size_t i;

    json_array_foreach(array, i, item)
    {
        if (json_is_string(item) && !strcmp(json_string_value(item), text))
            return true;
    }
    return false;
}

static bool is_this_machine(const json_t *names)
{
    for (const char *const *name = machines; *name; name++)
        if (array_has(names, *name))
            return true;
    return false;
}

/* "4.8" or newer. */
static bool kernel_is(const json_t *least)
{
    struct utsname name;
    int wanted[2] = {0}, found[2] = {0};

    return uname(&name) == 0 && sscanf(json_string_value(least), "%d.%d", wanted, wanted + 1) > 0 &&
           sscanf(name.release, "%d.%d", found, found + 1) == 2 &&
           (found[0] > wanted[0] || (found[0] == wanted[0] && found[1] >= wanted[1]));
}

/* All conditions of an include must hold; one of an exclude is enough. */
static bool row_counts(const json_t *row, const json_t *capabilities)
{
    const json_t *includes = json_object_get(row, "includes");
    const json_t *excludes = json_object_get(row, "excludes"), *name;
    const json_t *caps = json_object_get(includes, "caps");
    const json_t *arches = json_object_get(includes, "arches");
    const json_t *kernel = json_object_get(includes, "minKernel");
    size_t i;

    json_array_foreach(caps, i, name)
    {
        if (!json_is_string(name) || !array_has(capabilities, json_string_value(name)))
            return false;
    }
    if ((json_array_size(arches) && !is_this_machine(arches)) ||
        (json_is_string(kernel) && !kernel_is(kernel)))
        return false;
    json_array_foreach(json_object_get(excludes, "caps"), i, name)
    {
        if (json_is_string(name) && array_has(capabilities, json_string_value(name)))
            return false;
    }
    kernel = json_object_get(excludes, "minKernel");
    return !is_this_machine(json_object_get(excludes, "arches")) &&
           !(json_is_string(kernel) && kernel_is(kernel));
}

static json_t *architectures(const json_t *profile)
{
    const json_t *row;
    size_t i;

    json_array_foreach(json_object_get(profile, "archMap"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "architecture"));
        json_t *list;

        if (!name || strcmp(name, machine) != 0)
            continue;
        list = json_array();
        json_array_append_new(list, json_string(name));
        json_array_extend(list, json_object_get(row, "subArchitectures"));
        return list;
    }
    return json_deep_copy(json_object_get(profile, "architectures"));
}

/* Members that only profiles have, or that are null there, are left out. */
static json_t *plain_row(const json_t *row)
{
    static const char *const members[] = {"names", "action", "errnoRet", "args"};
    json_t *plain = json_object(), *name = json_object_get(row, "name");

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_t *value = json_object_get(row, members[i]);
        if (value && !json_is_null(value))
            json_object_set(plain, members[i], value);
    }
    if (name && !json_object_get(plain, "names"))
        json_object_set_new(plain, "names", json_pack("[O]", name));
    return plain;
}

json_t *seccomp_resolve(const json_t *profile, const json_t *capabilities)
{
    static const char *const members[] = {"defaultAction", "defaultErrnoRet", "flags",
                                          "listenerPath", "listenerMetadata"};
    json_t *seccomp = json_object(), *rows = json_array(), *names = architectures(profile), *row;
    size_t i;

    for (i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_t *value = json_object_get(profile, members[i]);
        if (value && !json_is_null(value))
            json_object_set(seccomp, members[i], value);
    }
    if (names)
        json_object_set_new(seccomp, "architectures", names);
    json_array_foreach(json_object_get(profile, "syscalls"), i, row)
    {
        if (row_counts(row, capabilities))
            json_array_append_new(rows, plain_row(row));
    }
    json_object_set_new(seccomp, "syscalls", rows);
    return seccomp;
}
