/* Paths inside a root, by openat2(2) and by the walk that does without it. */
#include "../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container/path.h"

static char top[] = "/tmp/lodge-path-XXXXXX";

static void link_make(const char *target, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/root/%s", top, name);
    assert_int_equal(symlink(target, path), 0);
}

static int tree_make(void **state)
{
    char command[512];

    (void)state;
    assert_non_null(mkdtemp(top));
    snprintf(command, sizeof(command),
             "cd %s && mkdir -p outside root/a/b root/etc && echo host > outside/secret && "
             "echo in > root/etc/file && echo deep > root/a/b/file",
             top);
    assert_int_equal(system(command), 0);
    link_make("/etc/file", "absolute");
    link_make("../../../../../../etc/file", "a/climbing");
    link_make("../outside/secret", "escape");
    link_make("a/b", "directory");
    link_make("loop2", "loop1");
    link_make("loop1", "loop2");
    link_make("nowhere", "dangling");
    link_make("/proc/self/root", "magic");
    return 0;
}

static int tree_remove(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", top);
    return system(command);
}

static struct path_root root_open(bool walk)
{
    char path[64];
    struct path_root root = {.walk = walk};

    snprintf(path, sizeof(path), "%s/root", top);
    root.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_true(root.fd >= 0);
    return root;
}

/* The first word of the file, or the error. */
static void expect_file(struct path_root *root, const char *path, const char *content, int error)
{
    int fd = path_open(root, path, O_RDONLY);
    char text[16] = "";

    if (error) {
        assert_int_equal(fd, -error);
        return;
    }
    if (fd < 0)
        fail_msg("%s (walk: %d): %s", path, root->walk, strerror(-fd));
    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    text[strcspn(text, "\n")] = 0;
    assert_string_equal(text, content);
    close(fd);
}

static void no_path_leads_out_of_the_root(void **state)
{
    static const struct {
        const char *path, *content;
        int error;
    } cases[] = {
        {"/etc/file", "in", 0},
        {"etc/../etc/./file", "in", 0},
        {"../../../etc/file", "in", 0},
        {"absolute", "in", 0},
        {"a/climbing", "in", 0},
        {"directory/file", "deep", 0},
        {"directory/../b/file", "deep", 0},
        {"escape", NULL, ENOENT},
        {"../outside/secret", NULL, ENOENT},
        {"loop1", NULL, ELOOP},
        {"dangling", NULL, ENOENT},
        {"etc/file/x", NULL, ENOTDIR},
        {"magic/etc/file", NULL, ENOENT},
    };

    (void)state;
    for (int walk = 0; walk < 2; walk++) {
        struct path_root root = root_open(walk);

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            expect_file(&root, cases[i].path, cases[i].content, cases[i].error);
        close(root.fd);
    }
}

static void directories_and_files_are_made_inside(void **state)
{
    (void)state;
    for (int walk = 0; walk < 2; walk++) {
        struct path_root root = root_open(walk);
        char path[64], real[128];
        struct stat status;
        int fd;

        snprintf(path, sizeof(path), "/../directory/new%d/x", walk);
        fd = path_make_directory(&root, path, 0700, NULL);
        assert_true(fd >= 0);
        close(fd);
        snprintf(real, sizeof(real), "%s/root/a/b/new%d/x", top, walk);
        assert_int_equal(stat(real, &status), 0);
        assert_true(S_ISDIR(status.st_mode));
        snprintf(path, sizeof(path), "made%d/file", walk);
        fd = path_make_file(&root, path, NULL);
        assert_true(fd >= 0);
        close(fd);
        snprintf(real, sizeof(real), "%s/root/made%d/file", top, walk);
        assert_int_equal(stat(real, &status), 0);
        assert_true(S_ISREG(status.st_mode));
        assert_true(path_make_directory(&root, "etc/file/x", 0700, NULL) < 0);
        close(root.fd);
    }
}

static void dangling_links_are_made_where_they_lead_inside(void **state)
{
    static const struct {
        const char *link, *target, *made;
    } cases[] = {
        {"d1", "/fresh1/file", "fresh1/file"},
        {"d2", "../../../fresh2/file", "fresh2/file"},
        {"a/d3", "fresh3/file", "a/fresh3/file"},
    };

    (void)state;
    for (int walk = 0; walk < 2; walk++) {
        struct path_root root = root_open(walk);

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            char real[160], name[64], path[96];
            struct stat status;
            int fd;

            snprintf(name, sizeof(name), "%s-%d", cases[i].link, walk);
            link_make(cases[i].target, name);
            fd = path_make_file(&root, name, NULL);
            assert_true(fd >= 0);
            close(fd);
            snprintf(real, sizeof(real), "%s/root/%s", top, cases[i].made);
            assert_int_equal(stat(real, &status), 0);
            assert_true(S_ISREG(status.st_mode));
            assert_int_equal(unlink(real), 0);
            snprintf(path, sizeof(path), "%s/below", name);
            fd = path_make_directory(&root, path, 0755, NULL);
            assert_true(fd >= 0);
            close(fd);
            snprintf(real, sizeof(real), "%s/root/%s/below", top, cases[i].made);
            assert_int_equal(rmdir(real), 0);
            snprintf(real, sizeof(real), "%s/root/%s", top, cases[i].made);
            assert_int_equal(rmdir(real), 0);
        }
        assert_true(path_make_file(&root, "loop1", NULL) < 0);
        assert_true(path_make_directory(&root, "loop1/x", 0755, NULL) < 0);
        close(root.fd);
    }
}

static void a_name_that_is_no_file_is_refused(void **state)
{
    struct path_root root = root_open(false);
    const char *name;

    (void)state;
    assert_int_equal(path_open_parent(&root, "/a/..", &name, NULL), -EINVAL);
    assert_int_equal(path_open_parent(&root, "/", &name, NULL), -EINVAL);
    assert_int_equal(path_open_parent(&root, "", &name, NULL), -EINVAL);
    close(root.fd);
}

static void nothing_below_a_trusted_directory_is_a_link(void **state)
{
    struct path_root root = root_open(false);

    (void)state;
    assert_true(path_open_beneath(root.fd, "absolute", O_RDONLY) < 0);
    assert_true(path_open_beneath(root.fd, "../outside/secret", O_RDONLY) < 0);
    close(root.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_path_leads_out_of_the_root),
        cmocka_unit_test(directories_and_files_are_made_inside),
        cmocka_unit_test(dangling_links_are_made_where_they_lead_inside),
        cmocka_unit_test(a_name_that_is_no_file_is_refused),
        cmocka_unit_test(nothing_below_a_trusted_directory_is_a_link),
    };

    return cmocka_run_group_tests(tests, tree_make, tree_remove);
}
