/* http.h - one HTTP exchange at a time, over libcurl. What the other side says is
 * hostile: documents and header fields are bounded, redirections lead to http(s) only,
 * and a transfer that stalls is given up. */
#ifndef LODGE_IMAGE_REGISTRY_REGISTRY_HTTP_H
#define LODGE_IMAGE_REGISTRY_REGISTRY_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* How to reach one host. */
struct http_peer {
    const char *ca_file; /* PEM certificates to trust instead of the system's, or NULL */
    bool insecure;       /* any certificate will do, and plain HTTP too */
};

struct http_request {
    const char *method; /* GET, HEAD, POST or PUT */
    const char *url;
    const char *accept, *authorization, *content_type; /* header values, or NULL */
    uint64_t range_start;                              /* 0: all of it */
    /* The body of a PUT: text, or (body_fd not below 0) length bytes of a file. */
    const char *body;
    int body_fd;
    uint64_t body_length;
    void (*sent)(void *opaque, uint64_t bytes); /* how much of the body has gone out, or NULL */
    /* Takes the body of an answer with a status of 2xx, as it comes; a negative
     * errno stops the transfer. NULL: the body is kept in the answer's text. */
    int (*sink)(void *opaque, long status, const void *data, size_t length, struct error *err);
    void *opaque;
};

struct http_answer {
    long status;
    char content_type[128], digest[144], location[2048], challenge[2048]; /* header values or "" */
    char *text; /* the body, unless the sink took it; freed by http_answer_release */
    size_t length;
};

/* Once, before there are threads; cheap when done already. */
int http_prepare(struct error *err);

/* 0 when an answer came, whatever its status. Any thread. Errors of transport:
 * -ECONNREFUSED (no connection), -EPROTO (TLS), -EAGAIN (broken off: worth another try),
 * else the sink's own. */
int http_perform(const struct http_peer *peer, const struct http_request *request,
                 struct http_answer *ret_answer, struct error *err);
void http_answer_release(struct http_answer *answer);

/* location, which may be relative, as seen from base: into url of size bytes. */
int http_resolve(const char *base, const char *location, char *url, size_t size, struct error *err);
/* Text for a URL's query; freed by the caller. NULL: out of memory. */
char *http_escape(const char *text);

#endif
