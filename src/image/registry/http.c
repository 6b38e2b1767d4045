#include "image/registry/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <curl/curl.h>

#include "base/bytes.h"
#include "image/library.h"
#include "image/manifest.h"

#define CONNECT_SECONDS 30L
#define STALL_SECONDS   30L /* without a byte */
#define REDIRECTS_MAX   5L

struct exchange {
    CURL *curl;
    const struct http_request *request;
    struct http_answer answer;
    uint64_t sent;
    char range[32];
    struct error why; /* of a failure inside a callback */
    int code;
};

/* --- Callbacks --- */

static int keep(struct http_answer *answer, const char *data, size_t length, struct error *err)
{
    char *text;

    if (length > DOCUMENT_MAX - answer->length)
        return error_set(err, EFBIG, "the answer is larger than %d bytes", DOCUMENT_MAX);
    text = realloc(answer->text, answer->length + length + 1);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(text + answer->length, data, length);
    answer->text = text;
    answer->length += length;
    text[answer->length] = 0;
    return 0;
}

static size_t body_came(char *data, size_t one, size_t length, void *opaque)
{
    struct exchange *x = opaque;
    long status = 0;

    (void)one;
    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    if (x->request->sink && status / 100 == 2)
        x->code = x->request->sink(x->request->opaque, status, data, length, &x->why);
    else
        x->code = keep(&x->answer, data, length, &x->why);
    return x->code < 0 ? 0 : length;
}

/* Take the value of a header line when it is the one called name. */
static void take_header(const char *line, size_t length, const char *name, char *value, size_t size)
{
    size_t n = strlen(name);

    if (length <= n || strncasecmp(line, name, n) || line[n] != ':')
        return;
    line += n + 1;
    length -= n + 1;
    while (length && (*line == ' ' || *line == '\t')) {
        line++;
        length--;
    }
    while (length && strchr("\r\n \t", line[length - 1]))
        length--;
    if (length < size) { /* an absurd one counts as absent */
        memcpy(value, line, length);
        value[length] = 0;
    }
}

static size_t header_came(char *line, size_t one, size_t length, void *opaque)
{
    struct exchange *x = opaque;
    struct http_answer *a = &x->answer;

    (void)one;
    if (length > 5 && !strncmp(line, "HTTP/", 5)) { /* of a redirection's goal: begin anew */
        a->content_type[0] = a->digest[0] = a->location[0] = a->challenge[0] = 0;
        a->length = 0;
    }
    take_header(line, length, "Content-Type", a->content_type, sizeof(a->content_type));
    take_header(line, length, "Docker-Content-Digest", a->digest, sizeof(a->digest));
    take_header(line, length, "Location", a->location, sizeof(a->location));
    take_header(line, length, "WWW-Authenticate", a->challenge, sizeof(a->challenge));
    return length;
}

static size_t body_goes(char *buffer, size_t one, size_t size, void *opaque)
{
    struct exchange *x = opaque;
    const struct http_request *request = x->request;
    uint64_t left = request->body_length - x->sent;
    ssize_t n = (ssize_t)MIN(left, (uint64_t)(one * size));

    if (request->body_fd >= 0)
        n = pread(request->body_fd, buffer, (size_t)n, (off_t)x->sent);
    else
        memcpy(buffer, request->body + x->sent, (size_t)n);
    if (n < 0) {
        x->code = error_system(&x->why, errno, "cannot read what is to be sent");
        return CURL_READFUNC_ABORT;
    }
    x->sent += (uint64_t)n;
    if (request->sent)
        request->sent(request->opaque, x->sent);
    return (size_t)n;
}

static int body_rewinds(void *opaque, curl_off_t offset, int origin)
{
    struct exchange *x = opaque;

    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > x->request->body_length)
        return CURL_SEEKFUNC_CANTSEEK;
    x->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* --- The exchange --- */

static struct curl_slist *add_header(struct curl_slist *list, const char *name, const char *value)
{
    struct curl_slist *longer;
    char *line;

    if (!value || asprintf(&line, "%s: %s", name, value) < 0)
        return list;
    longer = curl_slist_append(list, line);
    free(line);
    return longer ? longer : list;
}

static void set_peer(CURL *curl, const struct http_peer *peer)
{
    const char *protocols = peer->insecure ? "https,http" : "https";

    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, protocols);
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, protocols);
    if (peer->ca_file)
        curl_easy_setopt(curl, CURLOPT_CAINFO, peer->ca_file);
    if (peer->insecure) {
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, STALL_SECONDS);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lodge");
}

static void set_request(struct exchange *x, const struct http_request *request)
{
    CURL *curl = x->curl;

    curl_easy_setopt(curl, CURLOPT_URL, request->url);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_came);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, header_came);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
    if (!strcmp(request->method, "HEAD")) {
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (!strcmp(request->method, "POST")) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, 0L);
    } else if (!strcmp(request->method, "PUT")) {
        curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(curl, CURLOPT_READFUNCTION, body_goes);
        curl_easy_setopt(curl, CURLOPT_READDATA, x);
        curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, body_rewinds);
        curl_easy_setopt(curl, CURLOPT_SEEKDATA, x);
        curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_length);
    } else {
        /* Registries send readers on to where the content lies. libcurl takes the
         * authorization along to the same host only. */
        curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
        curl_easy_setopt(curl, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
    }
    if (request->range_start) {
        snprintf(x->range, sizeof(x->range), "%llu-", (unsigned long long)request->range_start);
        curl_easy_setopt(curl, CURLOPT_RANGE, x->range);
    }
}

static int code_of(CURLcode result)
{
    switch (result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return ECONNREFUSED;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return EPROTO;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return EAGAIN;
    default:
        return EIO;
    }
}

int http_prepare(struct error *err)
{
    int r = library_load(&library_curl, err);

    if (r == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        r = error_set(err, EIO, "cannot set up libcurl");
    return r;
}

int http_perform(const struct http_peer *peer, const struct http_request *request,
                 struct http_answer *ret_answer, struct error *err)
{
    struct exchange x = {.request = request};
    struct curl_slist *headers = NULL;
    char words[CURL_ERROR_SIZE] = "";
    CURLcode result;
    int r = 0;

    x.curl = curl_easy_init();
    if (!x.curl)
        return error_set(err, ENOMEM, "cannot set up libcurl");
    headers = add_header(headers, "Accept", request->accept);
    headers = add_header(headers, "Authorization", request->authorization);
    headers = add_header(headers, "Content-Type", request->content_type);
    set_peer(x.curl, peer);
    set_request(&x, request);
    curl_easy_setopt(x.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(x.curl, CURLOPT_ERRORBUFFER, words);
    result = curl_easy_perform(x.curl);
    if (result == CURLE_OK)
        curl_easy_getinfo(x.curl, CURLINFO_RESPONSE_CODE, &x.answer.status);
    else if (x.code < 0)
        r = error_set(err, -x.code, "%s", x.why.text);
    else
        r = error_set(err, code_of(result), "%s: %s", request->url,
                      words[0] ? words : curl_easy_strerror(result));
    curl_easy_cleanup(x.curl);
    curl_slist_free_all(headers);
    if (r < 0) {
        http_answer_release(&x.answer);
        return r;
    }
    *ret_answer = x.answer;
    return 0;
}

void http_answer_release(struct http_answer *answer)
{
    free(answer->text);
    *answer = (struct http_answer){0};
}

int http_resolve(const char *base, const char *location, char *url, size_t size, struct error *err)
{
    char *text = NULL;
    CURLU *parsed = curl_url();
    int r = 0;

    if (!parsed || curl_url_set(parsed, CURLUPART_URL, base, 0) != CURLUE_OK ||
        curl_url_set(parsed, CURLUPART_URL, location, 0) != CURLUE_OK ||
        curl_url_get(parsed, CURLUPART_URL, &text, 0) != CURLUE_OK || strlen(text) >= size)
        r = error_set(err, EPROTO, "the address '%.200s' cannot be understood", location);
    else
        strcpy(url, text);
    curl_free(text);
    curl_url_cleanup(parsed);
    return r;
}

char *http_escape(const char *text)
{
    char *escaped = curl_easy_escape(NULL, text, 0), *copy = escaped ? strdup(escaped) : NULL;

    curl_free(escaped);
    return copy;
}
