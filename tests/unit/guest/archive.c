/* What a virtual machine may send as an archive. */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "guest/archive.h"
#include "image/tree.h"

/* A stream that a test writes, and a directory that it is received in. */
struct place {
    char *bytes;
    size_t length;
    FILE *out;
    char path[32];
    int directory;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    assert_non_null(place);
    strcpy(place->path, "/tmp/archive-XXXXXX");
    assert_non_null(mkdtemp(place->path));
    place->directory = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    place->out = open_memstream(&place->bytes, &place->length);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    if (place->out)
        fclose(place->out);
    close(place->directory);
    tree_remove(AT_FDCWD, place->path);
    free(place->bytes);
    free(place);
    return 0;
}

static void entry(struct place *place, uint32_t mode, const char *name)
{
    uint8_t head[44] = {0}, length[2], attributes[2] = {0};

    store_le32(head, mode);
    store_le32(head + 4, getuid());
    store_le32(head + 8, getgid());
    store_le16(length, (uint16_t)strlen(name));
    fwrite(head, sizeof(head), 1, place->out);
    fwrite(length, sizeof(length), 1, place->out);
    fwrite(name, strlen(name), 1, place->out);
    fwrite(attributes, sizeof(attributes), 1, place->out);
}

static void number(struct place *place, uint32_t value)
{
    uint8_t bytes[4];

    store_le32(bytes, value);
    fwrite(bytes, sizeof(bytes), 1, place->out);
}

static int receive(struct place *place, bool trusted, struct error *err)
{
    FILE *in;
    int r;

    fclose(place->out);
    place->out = NULL;
    in = fmemopen(place->bytes, place->length, "r");
    assert_non_null(in);
    r = archive_receive(in, trusted, place->directory, "made", err);
    fclose(in);
    return r;
}

static void a_tree_comes_through(void **state)
{
    struct place *place = *state;
    struct stat st;
    char text[8] = "";
    int fd;

    assert_int_equal(mkdirat(place->directory, "from", 0750), 0);
    fd = openat(place->directory, "from/file", O_WRONLY | O_CREAT, 0640);
    assert_int_equal(write(fd, "abc", 3), 3);
    close(fd);
    assert_int_equal(symlinkat("/etc/shadow", place->directory, "from/link"), 0);
    assert_int_equal(archive_send(place->directory, "from", place->out, NULL), 0);
    assert_int_equal(receive(place, false, NULL), 0);
    fd = openat(place->directory, "made/file", O_RDONLY);
    assert_int_equal(read(fd, text, sizeof(text)), 3);
    close(fd);
    assert_string_equal(text, "abc");
    assert_int_equal(fstatat(place->directory, "made", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    memset(text, 0, sizeof(text));
    assert_int_equal(readlinkat(place->directory, "made/link", text, 4), 4);
    assert_string_equal(text, "/etc");
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
    static const char *const names[] = {"..", ".", "a/b", "/etc/x", "../made", ""};
    struct stat st;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct place *place = *state;

        entry(place, S_IFDIR | 0755, "");
        entry(place, S_IFREG | 0644, names[i]);
        number(place, 0);
        number(place, ARCHIVE_END);
        assert_int_equal(receive(place, false, NULL), -EPROTO);
        assert_int_equal(fstatat(place->directory, "made/b", &st, 0), -1);
        tear_down(state);
        set_up(state);
    }
}

static void a_link_is_not_followed_by_what_comes_after_it(void **state)
{
    struct place *place = *state;
    uint8_t length[2];
    struct error err;

    entry(place, S_IFDIR | 0755, "");
    entry(place, S_IFLNK | 0777, "out");
    store_le16(length, 4);
    fwrite(length, sizeof(length), 1, place->out);
    fwrite("/tmp", 4, 1, place->out);
    entry(place, S_IFDIR | 0755, "out");
    number(place, ARCHIVE_END);
    number(place, ARCHIVE_END);
    assert_int_equal(receive(place, false, &err), -EEXIST);
}

static void privileges_come_from_the_trusted_only(void **state)
{
    struct place *place = *state;
    struct stat st;

    entry(place, S_IFREG | 06755, "");
    number(place, 0);
    assert_int_equal(receive(place, false, NULL), 0);
    assert_int_equal(fstatat(place->directory, "made", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    tear_down(state);
    set_up(state);
    place = *state;
    entry(place, S_IFBLK | 0666, "");
    assert_int_equal(receive(place, false, NULL), -EPERM);
    tear_down(state);
    set_up(state);
    place = *state;
    entry(place, S_IFREG | 04755, "");
    number(place, 0);
    assert_int_equal(receive(place, true, NULL), 0);
    assert_int_equal(fstatat(place->directory, "made", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 04755);
}

static void what_breaks_off_or_never_ends_is_an_error(void **state)
{
    struct place *place = *state;
    struct error err;

    entry(place, S_IFREG | 0644, "");
    number(place, 100);
    assert_int_equal(receive(place, false, &err), -EPIPE);
    tear_down(state);
    set_up(state);
    place = *state;
    entry(place, S_IFREG | 0644, "");
    number(place, 1u << 30);
    assert_int_equal(receive(place, false, &err), -EPROTO);
    tear_down(state);
    set_up(state);
    place = *state;
    for (int i = 0; i < 1000; i++)
        entry(place, S_IFDIR | 0755, i ? "d" : "");
    assert_int_equal(receive(place, false, &err), -ELOOP);
}

static void the_senders_words_are_one_line(void **state)
{
    struct place *place = *state;
    const struct error why = {.code = EIO, .text = "no\n\x1b[2Jsuch file"};
    struct error err;

    archive_send_failure(place->out, &why);
    assert_int_equal(receive(place, false, &err), -EIO);
    assert_string_equal(err.text, "no??[2Jsuch file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_tree_comes_through, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_that_lead_elsewhere_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_link_is_not_followed_by_what_comes_after_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(privileges_come_from_the_trusted_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_breaks_off_or_never_ends_is_an_error, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_senders_words_are_one_line, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
