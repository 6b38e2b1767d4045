#include "image/library.h"

#include <stddef.h>

/* clang-format off */
#define ARCHIVE(X)                                                                                 \
    X(archive_entry_filetype) X(archive_entry_free) X(archive_entry_gid) X(archive_entry_hardlink) \
    X(archive_entry_mtime) X(archive_entry_mtime_nsec) X(archive_entry_new)                        \
    X(archive_entry_pathname) X(archive_entry_perm) X(archive_entry_rdevmajor)                     \
    X(archive_entry_rdevminor) X(archive_entry_set_filetype) X(archive_entry_set_mtime)            \
    X(archive_entry_set_pathname) X(archive_entry_set_perm) X(archive_entry_set_size)              \
    X(archive_entry_size) X(archive_entry_symlink) X(archive_entry_uid)                            \
    X(archive_entry_xattr_next) X(archive_entry_xattr_reset) X(archive_error_string)               \
    X(archive_filter_bytes) X(archive_read_data_block) X(archive_read_free) X(archive_read_new)    \
    X(archive_read_next_header) X(archive_read_open) X(archive_read_open1)                         \
    X(archive_read_set_callback_data) X(archive_read_set_format_option)                            \
    X(archive_read_set_read_callback) X(archive_read_set_skip_callback)                            \
    X(archive_read_support_filter_gzip) X(archive_read_support_filter_zstd)                        \
    X(archive_read_support_format_empty) X(archive_read_support_format_raw)                        \
    X(archive_read_support_format_tar) X(archive_set_error) X(archive_write_add_filter_zstd)       \
    X(archive_write_close) X(archive_write_data) X(archive_write_free) X(archive_write_header)     \
    X(archive_write_new) X(archive_write_open) X(archive_write_set_bytes_in_last_block)            \
    X(archive_write_set_format_pax_restricted) X(archive_write_set_format_raw)

#define CRYPTO(X)                                                                                  \
    X(EVP_DigestFinal_ex) X(EVP_DigestInit_ex) X(EVP_DigestUpdate) X(EVP_MD_CTX_free)              \
    X(EVP_MD_CTX_new) X(EVP_sha256) X(EVP_sha512)

#define CURL(X)                                                                                    \
    X(curl_easy_cleanup) X(curl_easy_escape) X(curl_easy_getinfo) X(curl_easy_init)                \
    X(curl_easy_perform) X(curl_easy_setopt) X(curl_easy_strerror) X(curl_free)                    \
    X(curl_global_init) X(curl_slist_append) X(curl_slist_free_all) X(curl_url)                    \
    X(curl_url_cleanup) X(curl_url_get) X(curl_url_set)

ARCHIVE(LIBRARY_SYMBOL)
CRYPTO(LIBRARY_SYMBOL)
CURL(LIBRARY_SYMBOL)

static const struct library_symbol archive_symbols[] = {ARCHIVE(LIBRARY_ROW) {NULL, NULL}};
static const struct library_symbol crypto_symbols[] = {CRYPTO(LIBRARY_ROW) {NULL, NULL}};
static const struct library_symbol curl_symbols[] = {CURL(LIBRARY_ROW) {NULL, NULL}};
/* clang-format on */

const struct library library_archive = {"libarchive.so.13", "libarchive13", archive_symbols};
const struct library library_crypto = {"libcrypto.so.3", "libssl3", crypto_symbols};
const struct library library_curl = {"libcurl.so.4", "libcurl4", curl_symbols};
