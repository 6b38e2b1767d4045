#include "image/reference.h"

#include <stdio.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGIT "0123456789"

/* Copy length bytes of text, which must fit with a NUL. */
static int copy(char *to, size_t size, const char *text, size_t length, const char *what,
                struct error *err)
{
    if (length >= size)
        return error_set(err, EINVAL, "the %s '%.40s...' is longer than %zu characters", what, text,
                         size - 1);
    memcpy(to, text, length);
    to[length] = 0;
    return 0;
}

/* [a-z0-9]+ ((. | _ | __ | -+) [a-z0-9]+)*, joined by "/". */
static bool repository_valid(const char *text)
{
    for (;;) {
        size_t separators;

        if (!strspn(text, LOWER DIGIT))
            return false;
        text += strspn(text, LOWER DIGIT);
        if (!*text)
            return true;
        separators = strspn(text, "-");
        if (!separators)
            separators = !strncmp(text, "__", 2) ? 2 : strchr("._/", *text) ? 1 : 0;
        if (!separators)
            return false;
        text += separators;
    }
}

/* HOST[:PORT]; an IPv6 address stands in brackets. */
static bool registry_valid(const char *text)
{
    size_t host, port;

    if (*text == '[') {
        host = 1 + strspn(text + 1, DIGIT "abcdefABCDEF:.");
        if (text[host++] != ']')
            return false;
    } else {
        host = strspn(text, LOWER UPPER DIGIT ".-_");
    }
    if (!host || text[0] == '-' || text[0] == '.')
        return false;
    if (!text[host])
        return true;
    port = strspn(text + host + 1, DIGIT);
    return text[host] == ':' && port > 0 && port <= 5 && !text[host + 1 + port];
}

static bool tag_valid(const char *text)
{
    return *text && *text != '.' && *text != '-' &&
           text[strspn(text, LOWER UPPER DIGIT "_.-")] == 0;
}

/* How many bytes of the name are its registry; 0: none is named. */
static size_t registry_length(const char *name, size_t length)
{
    size_t first = strcspn(name, "/");

    if (first >= length)
        return 0;
    if (memchr(name, '.', first) || memchr(name, ':', first) || name[0] == '[' ||
        (first == strlen("localhost") && !strncmp(name, "localhost", first)))
        return first;
    return 0;
}

int reference_parse(const char *text, struct reference *ret_reference, struct error *err)
{
    struct reference reference = {0};
    size_t name = strcspn(text, "@"), registry = registry_length(text, name);
    const char *repository = text + registry + (registry > 0);
    size_t length = name - (size_t)(repository - text);
    const char *colon = memchr(repository, ':', length);
    int r = 0;

    if (text[name] == '@')
        r = digest_parse(text + name + 1, &reference.digest, err);
    if (r == 0)
        r = copy(reference.registry, sizeof(reference.registry), text, registry, "registry", err);
    if (r == 0 && colon) {
        r = copy(reference.tag, sizeof(reference.tag), colon + 1,
                 length - (size_t)(colon + 1 - repository), "tag", err);
        length = (size_t)(colon - repository);
    } else if (!reference.digest.text[0]) {
        strcpy(reference.tag, "latest");
    }
    if (r == 0)
        r = copy(reference.repository, sizeof(reference.repository), repository, length,
                 "repository", err);
    if (r < 0)
        return r;
    if (registry && !registry_valid(reference.registry))
        return error_set(err, EINVAL, "'%.100s': '%.100s' is no registry: HOST or HOST:PORT", text,
                         reference.registry);
    if (!repository_valid(reference.repository))
        return error_set(err, EINVAL,
                         "'%.100s' is no image name: NAME[:TAG], where NAME is lower-case letters, "
                         "digits, and single . _ - / between them",
                         text);
    if ((colon || !reference.digest.text[0]) && !tag_valid(reference.tag))
        return error_set(err, EINVAL,
                         "'%.100s' has a bad tag: letters, digits, and after the first . _ -",
                         text);
    *ret_reference = reference;
    return 0;
}

const char *reference_format(const struct reference *reference, char *buffer)
{
    snprintf(buffer, REFERENCE_TEXT_MAX, "%s%s%s%s%s%s%s", reference->registry,
             reference->registry[0] ? "/" : "", reference->repository, reference->tag[0] ? ":" : "",
             reference->tag, reference->digest.text[0] ? "@" : "", reference->digest.text);
    return buffer;
}
