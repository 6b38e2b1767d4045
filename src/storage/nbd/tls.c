#include "storage/nbd/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/library.h"
#include "storage/io.h"

#define RECORD (16 * 1024) /* of plain text, RFC 8446, section 5.1 */
#define PIECE  (64 * 1024) /* what is handed over at a time */

/* clang-format off */
#define SSL_FUNCTIONS(X)                                                                           \
    X(BIO_ctrl) X(BIO_free) X(BIO_new) X(BIO_read) X(BIO_s_mem) X(BIO_write) X(ERR_clear_error)    \
    X(ERR_peek_last_error) X(ERR_reason_error_string) X(SSL_CTX_check_private_key)                 \
    X(SSL_CTX_ctrl) X(SSL_CTX_free) X(SSL_CTX_load_verify_file) X(SSL_CTX_new)                     \
    X(SSL_CTX_set_default_verify_paths) X(SSL_CTX_set_num_tickets) X(SSL_CTX_set_options)          \
    X(SSL_CTX_set_verify) X(SSL_CTX_use_PrivateKey_file) X(SSL_CTX_use_certificate_chain_file)     \
    X(SSL_ctrl) X(SSL_do_handshake) X(SSL_free) X(SSL_get0_param) X(SSL_get_error)                 \
    X(SSL_get_verify_result) X(SSL_new) X(SSL_read) X(SSL_set1_host) X(SSL_set_accept_state)       \
    X(SSL_set_bio) X(SSL_set_connect_state) X(SSL_shutdown) X(SSL_write) X(TLS_client_method)      \
    X(TLS_server_method) X(X509_VERIFY_PARAM_set1_ip_asc) X(X509_verify_cert_error_string)

SSL_FUNCTIONS(LIBRARY_SYMBOL)

static const struct library_symbol symbols[] = {SSL_FUNCTIONS(LIBRARY_ROW) {NULL, NULL}};
/* clang-format on */

static const struct library library_ssl = {"libssl.so.3", "libssl3", symbols};

struct tls_credentials {
    SSL_CTX *context;
};

struct tls {
    struct storage *storage;
    int fd;
    SSL *ssl;
    BIO *in, *out;             /* what came from the socket; what has to go there; the SSL's */
    struct fiber_lock pushing; /* out is emptied in its order */
    uint8_t incoming[RECORD];
};

static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    return text ? text : "unknown reason";
}

/* --- Credentials --- */

/* "FOLDER/WHO-WHAT.pem", which can be read; to be freed. */
static int find_file(const char *folder, const char *who, const char *what, char **ret_path,
                     struct error *err)
{
    AUTO_FREE char *path = NULL;

    if (asprintf(&path, "%s/%s-%s.pem", folder, who, what) < 0) {
        path = NULL;
        return error_set(err, ENOMEM, "out of memory for certificates");
    }
    if (access(path, R_OK) < 0)
        return error_system(err, errno, "cannot read %s", path);
    *ret_path = steal_pointer(&path);
    return 0;
}

static int load_authorities(SSL_CTX *context, const char *folder, struct error *err)
{
    AUTO_FREE char *path = NULL;
    int r;

    if (!folder)
        return SSL_CTX_set_default_verify_paths(context)
                   ? 0
                   : error_set(err, EIO, "cannot load the system's certificates: %s", reason());
    r = find_file(folder, "ca", "cert", &path, err);
    if (r < 0)
        return r;
    if (!SSL_CTX_load_verify_file(context, path))
        return error_set(err, EBADMSG, "cannot load the certificate %s: %s", path, reason());
    return 0;
}

static int load_identity(SSL_CTX *context, const char *folder, const char *who, bool optional,
                         struct error *err)
{
    AUTO_FREE char *certificate = NULL, *key = NULL;
    int r = find_file(folder, who, "cert", &certificate, err);

    if (r == -ENOENT && optional)
        return 0;
    if (r == 0)
        r = find_file(folder, who, "key", &key, err);
    if (r < 0)
        return r;
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return error_set(err, EBADMSG, "cannot load the certificate %s: %s", certificate, reason());
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return error_set(err, EBADMSG, "cannot load the key %s: %s", key, reason());
    return 0;
}

int tls_credentials_load(enum tls_side side, const char *folder, bool verify,
                         struct tls_credentials **ret_credentials, struct error *err)
{
    struct tls_credentials *credentials;
    SSL_CTX *context;
    int r = library_load(&library_ssl, err), mode = SSL_VERIFY_NONE;

    if (r < 0)
        return r;
    ERR_clear_error();
    context = SSL_CTX_new(side == TLS_SERVER ? TLS_server_method() : TLS_client_method());
    credentials = context ? calloc(1, sizeof(*credentials)) : NULL;
    if (!credentials) {
        SSL_CTX_free(context);
        return error_set(err, ENOMEM, "out of memory for TLS");
    }
    credentials->context = context;
    /* A renegotiation would make a writer wait for a reader. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    if (side == TLS_CLIENT || verify) {
        r = load_authorities(context, folder, err);
        mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    SSL_CTX_set_verify(context, mode, NULL);
    if (r == 0 && folder)
        r = load_identity(context, folder, side == TLS_SERVER ? "server" : "client",
                          side == TLS_CLIENT, err);
    if (r < 0)
        tls_credentials_free(credentials);
    else
        *ret_credentials = credentials;
    return r;
}

void tls_credentials_free(struct tls_credentials *credentials)
{
    if (!credentials)
        return;
    SSL_CTX_free(credentials->context);
    free(credentials);
}

/* --- The socket --- */

/* Send what OpenSSL has made. */
static int push(struct tls *tls)
{
    uint8_t record[RECORD];
    int n, r = 0;

    fiber_lock(storage_fibers(tls->storage), &tls->pushing);
    while (r >= 0 && (n = BIO_read(tls->out, record, sizeof(record))) > 0)
        for (int sent = 0; r >= 0 && sent < n; sent += MAX(r, 0)) {
            r = io_send(tls->storage, tls->fd, record + sent, (size_t)(n - sent));
            if (r == -EINTR || r == -EAGAIN)
                r = 0;
            else if (r == 0)
                r = -EPIPE;
        }
    fiber_unlock(&tls->pushing);
    return MIN(r, 0);
}

/* Give OpenSSL what has come. -EPIPE at the end. */
static int pull(struct tls *tls)
{
    int n;

    do
        n = io_receive(tls->storage, tls->fd, tls->incoming, sizeof(tls->incoming));
    while (n == -EINTR || n == -EAGAIN);
    if (n <= 0)
        return n < 0 ? n : -EPIPE;
    return BIO_write(tls->in, tls->incoming, n) == n ? 0 : -ENOMEM;
}

/* --- The handshake --- */

static int shake_hands(struct tls *tls, struct error *err)
{
    for (;;) {
        int r, done, code;
        long verdict;

        ERR_clear_error();
        done = SSL_do_handshake(tls->ssl);
        code = SSL_get_error(tls->ssl, done);
        verdict = SSL_get_verify_result(tls->ssl);
        if (done != 1 && code != SSL_ERROR_WANT_READ) {
            error_set(err, EPROTO, "TLS: %s",
                      verdict == X509_V_OK ? reason() : X509_verify_cert_error_string(verdict));
            push(tls); /* the alert that tells the peer */
            return -EPROTO;
        }
        r = push(tls);
        if (r == 0 && done != 1)
            r = pull(tls);
        if (r < 0)
            return error_system(err, -r, "TLS: the handshake was broken off");
        if (done == 1)
            return 0;
    }
}

/* Whom a client expects. True: all went well. */
static bool expect_host(SSL *ssl, const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];

    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    return SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
}

int tls_start(const struct tls_credentials *credentials, struct storage *storage, int fd,
              const char *host, struct tls **ret_tls, struct error *err)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    int r;

    if (!tls)
        return error_set(err, ENOMEM, "out of memory for TLS");
    tls->storage = storage;
    tls->fd = fd;
    fiber_lock_init(&tls->pushing);
    tls->ssl = SSL_new(credentials->context);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (!tls->ssl || !tls->in || !tls->out || (host && !expect_host(tls->ssl, host))) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        SSL_free(tls->ssl);
        free(tls);
        return error_set(err, ENOMEM, "out of memory for TLS");
    }
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    if (host)
        SSL_set_connect_state(tls->ssl);
    else
        SSL_set_accept_state(tls->ssl);
    r = shake_hands(tls, err);
    if (r < 0) {
        SSL_free(tls->ssl);
        free(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

/* --- Bytes --- */

int tls_receive(struct tls *tls, void *buffer, size_t length)
{
    for (;;) {
        int n, r, code;

        ERR_clear_error();
        n = SSL_read(tls->ssl, buffer, (int)MIN(length, 1u << 30));
        if (n > 0)
            return n;
        code = SSL_get_error(tls->ssl, n);
        if (code == SSL_ERROR_ZERO_RETURN)
            return 0;
        r = push(tls); /* an alert, or the answer to a change of keys */
        if (r == 0)
            r = code == SSL_ERROR_WANT_READ ? pull(tls) : -EPROTO;
        if (r < 0)
            return r;
    }
}

int tls_send(struct tls *tls, const void *buffer, size_t length)
{
    int n, r;

    ERR_clear_error();
    n = SSL_write(tls->ssl, buffer, (int)MIN(length, PIECE));
    if (n <= 0)
        return -EPROTO;
    r = push(tls);
    return r < 0 ? r : n;
}

void tls_end(struct tls *tls)
{
    if (!tls)
        return;
    ERR_clear_error();
    SSL_shutdown(tls->ssl); /* says so in its record; nobody waits for the answer */
    push(tls);
    SSL_free(tls->ssl);
    free(tls);
}
