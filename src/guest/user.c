/* user.c - who a guest's processes run as, by the root's own passwd and group. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "container/path.h"
#include "guest/guest-private.h"

enum { FILE_MAX = 1 << 20 };

/* Cut a line of fields separated by colons in place; returns how many there are. */
static size_t split(char *line, char *fields[], size_t max)
{
    size_t count = 0;

    while (count < max) {
        fields[count++] = line;
        line = strchr(line, ':');
        if (!line)
            break;
        *line++ = 0;
    }
    return count;
}

static bool is_number(const char *text, unsigned long *ret_number)
{
    char *end;

    if (!*text || text[strspn(text, "0123456789")] || strlen(text) > 10)
        return false;
    *ret_number = strtoul(text, &end, 10);
    return *ret_number < UINT32_MAX;
}

struct who {
    char name[64];  /* "" when passwd does not know it */
    char home[256]; /* "/" when it is not known */
    unsigned long uid, gid;
};

/* Find a user by name, or by number; true when passwd has it. */
static bool find_user(char *passwd, const char *text, struct who *who)
{
    unsigned long number, uid, gid;
    bool numeric = is_number(text, &number);

    for (char *save = NULL, *line = passwd ? strtok_r(passwd, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        char *fields[7];
        size_t count = split(line, fields, 7);

        if (count < 4)
            continue;
        if (!is_number(fields[2], &uid) || !is_number(fields[3], &gid))
            continue;
        if (strcmp(fields[0], text) != 0 && !(numeric && uid == number))
            continue;
        snprintf(who->name, sizeof(who->name), "%s", fields[0]);
        if (count >= 6 && fields[5][0] == '/')
            snprintf(who->home, sizeof(who->home), "%s", fields[5]);
        who->uid = uid;
        who->gid = gid;
        return true;
    }
    who->uid = number;
    return false;
}

static bool lists(char *members, const char *name)
{
    for (char *save = NULL, *one = strtok_r(members, ",", &save); one;
         one = strtok_r(NULL, ",", &save))
        if (!strcmp(one, name))
            return true;
    return false;
}

/* Find the group called text (NULL: none is looked for), and those that have the user in them. */
static bool find_groups(char *groups, const char *text, struct who *who, json_t *additional)
{
    bool found = false;

    for (char *save = NULL, *line = groups ? strtok_r(groups, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        unsigned long gid;
        char *fields[4];

        if (split(line, fields, 4) < 4 || !is_number(fields[2], &gid))
            continue;
        if (text && !strcmp(fields[0], text)) {
            who->gid = gid;
            found = true;
        } else if (!text && who->name[0] && lists(fields[3], who->name)) {
            json_array_append_new(additional, json_integer((json_int_t)gid));
        }
    }
    return found;
}

int user_resolve(int root_fd, const char *text, json_t **ret_user, char **ret_home,
                 struct error *err)
{
    struct path_root root = {.fd = root_fd};
    AUTO_FREE char *passwd = path_read_text(&root, "/etc/passwd", FILE_MAX);
    AUTO_FREE char *groups = path_read_text(&root, "/etc/group", FILE_MAX);
    AUTO_FREE char *user = strdup(text[0] ? text : "0");
    char *group = user ? strchr(user, ':') : NULL;
    struct who who = {.home = "/"};
    unsigned long number;
    json_t *additional;

    if (!user)
        return error_set(err, ENOMEM, "out of memory");
    if (group)
        *group++ = 0;
    if (!find_user(passwd, user, &who) && !is_number(user, &number))
        return error_set(err, ENOENT, "the image has no user '%.60s'", user);
    additional = json_array();
    if (group && is_number(group, &number)) {
        who.gid = number;
    } else if (!find_groups(groups, group, &who, additional) && group) {
        json_decref(additional);
        return error_set(err, ENOENT, "the image has no group '%.60s'", group);
    }
    if (ret_home)
        *ret_home = strdup(who.home);
    /* The main group among the others too: a program that drops it does not escape what a file
     * denies to that group. */
    json_array_insert_new(additional, 0, json_integer((json_int_t)who.gid));
    *ret_user = json_pack("{sI sI so}", "uid", (json_int_t)who.uid, "gid", (json_int_t)who.gid,
                          "additionalGids", additional);
    return 0;
}

int user_add_groups(int root_fd, const json_t *groups, json_t *user, struct error *err)
{
    struct path_root root = {.fd = root_fd};
    json_t *additional = json_object_get(user, "additionalGids"), *item;
    size_t i;

    json_array_foreach(groups, i, item)
    {
        const char *text = json_string_value(item);
        AUTO_FREE char *file = path_read_text(&root, "/etc/group", FILE_MAX);
        struct who who = {.name = ""};

        if (!is_number(text, &who.gid) && !find_groups(file, text, &who, additional))
            return error_set(err, ENOENT, "the image has no group '%.60s'", text);
        json_array_append_new(additional, json_integer((json_int_t)who.gid));
    }
    return 0;
}
