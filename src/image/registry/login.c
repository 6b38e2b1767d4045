/* login.c - passwords for registries, tried and kept. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/directories.h"
#include "image/registry/registry-private.h"

enum { CREDENTIALS_MAX = 4096 };

/* RFC 4648, section 4. */
static void encode(const char *text, size_t length, char *encoded)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = (const unsigned char *)text;

    for (size_t i = 0; i < length; i += 3) {
        unsigned bits = (unsigned)in[i] << 16 | (i + 1 < length ? (unsigned)in[i + 1] << 8 : 0) |
                        (i + 2 < length ? in[i + 2] : 0);

        *encoded++ = digits[bits >> 18];
        *encoded++ = digits[bits >> 12 & 63];
        *encoded++ = i + 1 < length ? digits[bits >> 6 & 63] : '=';
        *encoded++ = i + 2 < length ? digits[bits & 63] : '=';
    }
    *encoded = 0;
}

/* --- The file --- */

/* The directory of path, made where it is missing, with nobody else at its logins. */
static int directory_lock(const char *path, int *ret_lock, struct error *err)
{
    const char *slash = strrchr(path, '/');
    char directory[PATH_MAX];
    AUTO_CLOSE int lock = -1;
    int r;

    snprintf(directory, sizeof(directory), "%.*s", slash > path ? (int)(slash - path) : 1,
             slash ? path : ".");
    lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 && errno == ENOENT) {
        if ((r = directories_make(directory, 0700, 0700, err)) < 0)
            return r;
        lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return error_system(err, errno, "cannot lock %s", directory);
    *ret_lock = steal_fd(&lock);
    return 0;
}

static int write_file(const char *path, const json_t *tree, struct error *err)
{
    AUTO_FREE char *text = json_dumps(tree, JSON_INDENT(4)), *temporary = NULL;
    AUTO_CLOSE int fd = -1;
    size_t length = text ? strlen(text) : 0;

    if (!text || asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return error_set(err, ENOMEM, "out of memory");
    fd = mkostemp(temporary, O_CLOEXEC); /* of mode 0600 */
    if (fd < 0)
        return error_system(err, errno, "cannot make %s", temporary);
    if (write(fd, text, length) == (ssize_t)length && fsync(fd) == 0 &&
        rename(temporary, path) == 0)
        return 0;
    error_system(err, errno, "cannot write %s", path);
    unlink(temporary);
    return -EIO;
}

/* Change the file's "auths" by fn, with nobody else at it. */
static int change(const char *auth_file, int (*fn)(json_t *auths, const void *opaque),
                  const void *opaque, struct error *err)
{
    char path[PATH_MAX];
    AUTO_CLOSE int lock = -1;
    json_error_t why;
    json_t *tree, *auths;
    int r;

    registry_config_login_path(auth_file, path, sizeof(path));
    if ((r = directory_lock(path, &lock, err)) < 0)
        return r;
    tree = access(path, F_OK) < 0 ? json_object() : json_load_file(path, 0, &why);
    if (!json_is_object(tree)) {
        r = error_set(err, EINVAL, "%s is damaged: line %d: %s", path, why.line, why.text);
        json_decref(tree);
        return r;
    }
    auths = json_object_get(tree, "auths");
    if (!json_is_object(auths))
        json_object_set_new(tree, "auths", auths = json_object());
    r = fn(auths, opaque);
    if (r == 0)
        r = write_file(path, tree, err);
    else
        error_set(err, ENOENT, "%s keeps no such login", path);
    json_decref(tree);
    return r;
}

/* --- Login --- */

struct login {
    const char *host, *encoded;
};

static int login_add(json_t *auths, const void *opaque)
{
    const struct login *login = opaque;

    return json_object_set_new(auths, login->host, json_pack("{ss}", "auth", login->encoded));
}

/* Base (distribution specification, Endpoints end-1): whether the registry takes it. */
static int try_login(const struct login *login, const struct registry_options *options,
                     struct error *err)
{
    struct http_request request = {.method = "GET", .body_fd = -1};
    struct http_answer answer;
    struct endpoints endpoints;
    char url[URL_MAX];
    int r;

    r = endpoints_open_host(&endpoints, login->host, login->encoded, options, err);
    if (r < 0)
        return r;
    snprintf(url, sizeof(url), "%s/v2/", endpoints.items[0].base);
    r = endpoint_perform(endpoints.items, url, &request, &answer, err);
    if (r == 0) {
        if (answer.status == 401 || answer.status == 403)
            r = error_set(err, EACCES, "%s does not take this user and password", login->host);
        else if (answer.status != 200)
            r = error_set(err, EIO, "%s is no registry: status %ld", login->host, answer.status);
        http_answer_release(&answer);
    }
    endpoints_close(&endpoints);
    return r;
}

int registry_login(const char *host, const char *user, const char *password,
                   const struct registry_options *options, struct error *err)
{
    char text[CREDENTIALS_MAX], encoded[2 * CREDENTIALS_MAX];
    struct login login = {host, encoded};
    int length = snprintf(text, sizeof(text), "%s:%s", user, password), r;

    if (length >= (int)sizeof(text) || strchr(user, ':') || !user[0])
        return error_set(err, EINVAL, "the user's name is empty, has a colon, or is too long");
    if (!host[0] || strchr(host, '/'))
        return error_set(err, EINVAL, "'%.100s' is no registry: HOST[:PORT]", host);
    encode(text, (size_t)length, encoded);
    r = try_login(&login, options, err);
    if (r == 0)
        r = change(options->auth_file, login_add, &login, err);
    explicit_bzero(text, sizeof(text));
    explicit_bzero(encoded, sizeof(encoded));
    return r;
}

static int login_remove(json_t *auths, const void *opaque)
{
    const char *host = opaque;

    return host ? json_object_del(auths, host) : json_object_clear(auths);
}

int registry_logout(const char *host, const char *auth_file, struct error *err)
{
    return change(auth_file, login_remove, host, err);
}
