/* The directory that is all that is known of a container. */
#include "../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container/state.h"

static char top[] = "/tmp/lodge-state-XXXXXX";
static char root[64];

static int root_make(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(top));
    snprintf(root, sizeof(root), "%s/a/b", top);
    return 0;
}

static int root_remove(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", top);
    return system(command);
}

static void ids_are_names_and_nothing_else(void **state)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "a b", "\n", "a\\b", "%", "~"};

    (void)state;
    assert_int_equal(state_id_check("aA0_+-.", NULL), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(state_id_check(bad[i], NULL), -EINVAL);
}

static void what_is_saved_is_read_again(void **state)
{
    struct state made, read;

    (void)state;
    assert_int_equal(state_create(&made, root, "one", NULL), 0);
    made.bundle = strdup("/bundle");
    made.rootfs = strdup("/bundle/rootfs");
    made.cgroup = json_array();
    assert_int_equal(state_set_pid(&made, getpid(), NULL), 0);
    assert_int_equal(state_save(&made, NULL), 0);
    assert_int_equal(state_create(&read, root, "one", NULL), -EEXIST);
    assert_int_equal(state_open(&read, root, "one", false, NULL), 0);
    assert_string_equal(read.bundle, "/bundle");
    assert_int_equal(read.pid, getpid());
    assert_int_equal(read.start_time, made.start_time);
    assert_true(state_is_alive(&read));
    read.start_time--; /* another process with the same number */
    assert_false(state_is_alive(&read));
    assert_int_equal(state_status(&read), STATE_STOPPED);
    state_release(&read);
    assert_int_equal(state_remove(&made, root, NULL), 0);
    state_release(&made);
    assert_int_equal(state_open(&read, root, "one", false, NULL), -ENOENT);
}

static void a_maker_that_died_leaves_a_stopped_container(void **state)
{
    char path[128];
    struct state read;

    (void)state;
    snprintf(path, sizeof(path), "%s/early", root);
    assert_int_equal(mkdir(path, 0711), 0);
    assert_int_equal(state_open(&read, root, "early", false, NULL), 0);
    assert_int_equal(state_status(&read), STATE_STOPPED);
    assert_int_equal(state_remove(&read, root, NULL), 0);
    state_release(&read);
}

static void a_damaged_state_is_told_and_can_be_destroyed(void **state)
{
    char path[128];
    struct state read;
    struct error err = {0};
    FILE *file;

    (void)state;
    snprintf(path, sizeof(path), "%s/broken", root);
    assert_int_equal(mkdir(path, 0711), 0);
    snprintf(path, sizeof(path), "%s/broken/state.json", root);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("{\"pid\":", file);
    fclose(file);
    assert_int_equal(state_open(&read, root, "broken", false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "damaged"));
    assert_int_equal(state_destroy(root, "broken", NULL), 0);
    assert_int_equal(state_open(&read, root, "broken", false, NULL), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_names_and_nothing_else),
        cmocka_unit_test(what_is_saved_is_read_again),
        cmocka_unit_test(a_maker_that_died_leaves_a_stopped_container),
        cmocka_unit_test(a_damaged_state_is_told_and_can_be_destroyed),
    };

    return cmocka_run_group_tests(tests, root_make, root_remove);
}
