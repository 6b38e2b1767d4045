/* Shared folders, spoken to in 9P2000.L. */
#include "../../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device/share/message.h"
#include "device/share/share.h"

enum {
    LERROR = 7, LOPEN = 12, LCREATE = 14, SYMLINK = 16, READLINK = 22, GETATTR = 24, LINK = 70,
    MKDIR = 72, RENAMEAT = 74, UNLINKAT = 76, VERSION = 100, ATTACH = 104, WALK = 110, READ = 116,
    WRITE = 118, CLUNK = 120,
};
enum { ROOT = 1 };

struct fixture {
    char folder[64], outside[80];
    struct share *share;
    uint8_t request[8192], reply[8192];
    struct writer out;
    struct reader in; /* of the reply, after its header */
};

static struct writer *begin(struct fixture *f, uint8_t type)
{
    f->out = (struct writer){f->request, 0, sizeof(f->request), false};
    write_u32(&f->out, 0);
    write_u8(&f->out, type);
    write_u16(&f->out, 5);
    return &f->out;
}

/* Send what was begun; returns 0, or the errno of the answer. */
static int end(struct fixture *f)
{
    uint8_t type = f->request[4];
    size_t length;

    store_le32(f->request, (uint32_t)f->out.used);
    length = share_serve(f->share, f->request, f->out.used, f->reply, sizeof(f->reply));
    assert_true(length >= 7);
    assert_int_equal(load_le32(f->reply), length);
    assert_int_equal(load_le16(f->reply + 5), 5);
    f->in = (struct reader){f->reply + 7, length - 7, false};
    if (f->reply[4] == LERROR)
        return (int)read_u32(&f->in);
    assert_int_equal(f->reply[4], type + 1);
    return 0;
}

static int walk(struct fixture *f, uint32_t from, uint32_t to, const char *name)
{
    struct writer *out = begin(f, WALK);

    write_u32(out, from);
    write_u32(out, to);
    write_u16(out, name ? 1 : 0);
    if (name)
        write_text(out, name);
    return end(f);
}

static int clunk(struct fixture *f, uint32_t fid)
{
    write_u32(begin(f, CLUNK), fid);
    return end(f);
}

static int open_fid(struct fixture *f, uint32_t fid, uint32_t flags)
{
    struct writer *out = begin(f, LOPEN);

    write_u32(out, fid);
    write_u32(out, flags);
    return end(f);
}

static int create(struct fixture *f, uint32_t fid, const char *name, uint32_t mode)
{
    struct writer *out = begin(f, LCREATE);

    write_u32(out, fid);
    write_text(out, name);
    write_u32(out, O_RDWR);
    write_u32(out, mode);
    write_u32(out, 0);
    return end(f);
}

static int write_data(struct fixture *f, uint32_t fid, const char *text)
{
    struct writer *out = begin(f, WRITE);

    write_u32(out, fid);
    write_u64(out, 0);
    write_u32(out, (uint32_t)strlen(text));
    memcpy(write_space(out, strlen(text)), text, strlen(text));
    return end(f);
}

static int read_data(struct fixture *f, uint32_t fid, char *text, size_t size)
{
    struct writer *out = begin(f, READ);
    uint32_t count;
    int r;

    write_u32(out, fid);
    write_u64(out, 0);
    write_u32(out, (uint32_t)size - 1);
    r = end(f);
    if (r)
        return r;
    count = read_u32(&f->in);
    memcpy(text, read_bytes(&f->in, count), count);
    text[count] = 0;
    return 0;
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[160];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void attach(struct fixture *f)
{
    struct writer *out = begin(f, VERSION);

    write_u32(out, 8192);
    write_text(out, "9P2000.L");
    assert_int_equal(end(f), 0);
    out = begin(f, ATTACH);
    write_u32(out, ROOT);
    write_u32(out, UINT32_MAX);
    write_text(out, "root");
    write_text(out, "");
    write_u32(out, 0);
    assert_int_equal(end(f), 0);
}

static int start(void **state, bool readonly)
{
    static struct fixture f;
    char path[160];

    strcpy(f.folder, "/tmp/lodge-test-share-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.outside, sizeof(f.outside), "%s/inside", f.folder);
    assert_int_equal(mkdir(f.outside, 0755), 0);
    put_file(f.folder, "secret", "nobody's business");
    put_file(f.outside, "hello", "hello there");
    snprintf(path, sizeof(path), "%s/escape", f.outside);
    assert_int_equal(symlink("../secret", path), 0);
    snprintf(path, sizeof(path), "%s/slash", f.outside);
    assert_int_equal(symlink("/", path), 0);
    snprintf(path, sizeof(path), "%s/pipe", f.outside);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(share_open(f.outside, readonly, &f.share, NULL), 0);
    attach(&f);
    *state = &f;
    return 0;
}

static int set_up(void **state)
{
    return start(state, false);
}

static int set_up_readonly(void **state)
{
    return start(state, true);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    char command[128];

    share_close(f->share);
    snprintf(command, sizeof(command), "rm -rf %s", f->folder);
    return system(command);
}

static void a_file_is_read_and_written(void **state)
{
    struct fixture *f = *state;
    char text[128];
    struct stat st;

    assert_int_equal(walk(f, ROOT, 2, "hello"), 0);
    assert_int_equal(open_fid(f, 2, O_RDWR), 0);
    assert_int_equal(read_data(f, 2, text, sizeof(text)), 0);
    assert_string_equal(text, "hello there");
    assert_int_equal(write_data(f, 2, "HELLO"), 0);
    assert_int_equal(read_data(f, 2, text, sizeof(text)), 0);
    assert_string_equal(text, "HELLO there");
    assert_int_equal(walk(f, ROOT, 3, NULL), 0);
    assert_int_equal(create(f, 3, "new", 06755), 0);
    assert_int_equal(write_data(f, 3, "new text"), 0);
    snprintf(text, sizeof(text), "%s/new", f->outside);
    assert_int_equal(stat(text, &st), 0);
    assert_int_equal(st.st_size, 8);
    assert_int_equal(st.st_mode & 07000, 0); /* no set-user-ID file */
    assert_int_equal(clunk(f, 3), 0);
    assert_int_equal(clunk(f, 3), EBADF);
}

static void no_name_leads_out_of_the_folder(void **state)
{
    static const char *const names[] = {"..", ".", "", "/", "../secret", "inside/../..",
                                        "/etc/passwd", "slash/etc"};
    struct fixture *f = *state;

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        assert_int_not_equal(walk(f, ROOT, 2, names[i]), 0);
        assert_int_equal(clunk(f, 2), EBADF);
        assert_int_equal(walk(f, ROOT, 3, NULL), 0);
        assert_int_not_equal(create(f, 3, names[i], 0644), 0);
        assert_int_equal(clunk(f, 3), 0);
    }
}

static void a_symbolic_link_is_told_and_not_followed(void **state)
{
    struct fixture *f = *state;
    char target[64];

    assert_int_equal(walk(f, ROOT, 2, "escape"), 0);
    write_u32(begin(f, READLINK), 2);
    assert_int_equal(end(f), 0);
    read_text(&f->in, target, sizeof(target));
    assert_string_equal(target, "../secret");
    assert_int_equal(open_fid(f, 2, O_RDONLY), ELOOP);
    assert_int_equal(walk(f, ROOT, 3, "slash"), 0);
    assert_int_not_equal(walk(f, 3, 4, "etc"), 0);
    /* Neither does creating go through one. */
    assert_int_equal(walk(f, ROOT, 5, NULL), 0);
    assert_int_not_equal(create(f, 5, "escape", 0644), 0);
}

static void a_pipe_is_not_opened(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(walk(f, ROOT, 2, "pipe"), 0);
    assert_int_equal(open_fid(f, 2, O_RDONLY), EACCES);
}

static void a_read_only_share_refuses_changes(void **state)
{
    struct fixture *f = *state;
    struct writer *out;

    assert_int_equal(walk(f, ROOT, 2, "hello"), 0);
    assert_int_equal(open_fid(f, 2, O_RDWR), EROFS);
    assert_int_equal(open_fid(f, 2, O_RDONLY | O_TRUNC), EROFS);
    assert_int_equal(open_fid(f, 2, O_RDONLY), 0);
    assert_int_equal(write_data(f, 2, "x"), EROFS);
    assert_int_equal(walk(f, ROOT, 3, NULL), 0);
    assert_int_equal(create(f, 3, "new", 0644), EROFS);
    out = begin(f, UNLINKAT);
    write_u32(out, ROOT);
    write_text(out, "hello");
    write_u32(out, 0);
    assert_int_equal(end(f), EROFS);
    out = begin(f, MKDIR);
    write_u32(out, ROOT);
    write_text(out, "d");
    write_u32(out, 0755);
    write_u32(out, 0);
    assert_int_equal(end(f), EROFS);
}

static void a_message_cut_anywhere_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct writer *out = begin(f, WALK);
    size_t whole;

    write_u32(out, ROOT);
    write_u32(out, 9);
    write_u16(out, 2);
    write_text(out, "hello");
    write_text(out, "hello");
    whole = out->used;
    for (size_t length = 0; length < whole; length++) {
        store_le32(f->request, (uint32_t)length);
        assert_true(share_serve(f->share, f->request, length, f->reply, sizeof(f->reply)) >= 11);
        if (length < 7 + 10 + 7) /* then the first name is whole, and found */
            assert_int_equal(f->reply[4], LERROR);
    }
    store_le32(f->request, UINT32_MAX);
    assert_int_equal(share_serve(f->share, f->request, whole, f->reply, sizeof(f->reply)), 11);
    assert_int_equal(share_serve(f->share, f->request, whole, f->reply, 10), 0);
}

static void fids_do_not_run_out_of_bounds(void **state)
{
    struct fixture *f = *state;
    unsigned made = 0;

    for (uint32_t fid = 100; fid < 10000; fid++)
        made += walk(f, ROOT, fid, NULL) == 0;
    assert_true(made > 100);
    assert_true(made <= 4096);
    attach(f); /* a new session has none of them */
    assert_int_equal(clunk(f, 100), EBADF);
}

int main(void)
{
#define TEST(name, set_up_) cmocka_unit_test_setup_teardown(name, set_up_, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_read_and_written, set_up),
        TEST(no_name_leads_out_of_the_folder, set_up),
        TEST(a_symbolic_link_is_told_and_not_followed, set_up),
        TEST(a_pipe_is_not_opened, set_up),
        TEST(a_read_only_share_refuses_changes, set_up_readonly),
        TEST(a_message_cut_anywhere_is_an_error, set_up),
        TEST(fids_do_not_run_out_of_bounds, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
