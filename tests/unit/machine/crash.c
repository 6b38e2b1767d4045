/* An engine that cannot go on ends its machine with one line, and the machine still tells the
 * state of its CPUs: for each way in which KVM comes back that the engine has no answer to. */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../engine/fake_kvm.h"
#include "base/bytes.h"
#include "machine/machine.h"

static const struct {
    uint32_t exit, suberror;
    int run_errno;
    const char *says;
} cases[] = {
    {KVM_EXIT_UNKNOWN, 0, 0, "for a reason that is not known (0)"},
    {KVM_EXIT_DEBUG, 0, 0, "for a reason that is not known (4)"},
    {KVM_EXIT_SYSTEM_EVENT, 0, 0, "for a reason that is not known (24)"},
    {200, 0, 0, "for a reason that is not known (200)"},
    {KVM_EXIT_FAIL_ENTRY, 0, 0, "cannot enter CPU 0"},
    {KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_DELIVERY_EV, 0, "internal error 3"},
    {0, 0, EFAULT, "KVM cannot run CPU 0"},
    {0, 0, ENOMEM, "KVM cannot run CPU 0"},
};

static struct loop *loop;
static struct machine_outcome outcome;

static void ended(void *opaque, const struct machine_outcome *how)
{
    (void)opaque;
    outcome = *how;
    loop_stop(loop);
}

static void each_exit_without_an_answer_leaves_the_state_of_the_cpus(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct machine_config config = {
            .name = "wreck", .cpus = 1, .memory = 2 << 20, .engine = &kvm_engine};
        struct machine *machine;
        struct error err;
        char *text;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        fake_kvm_reset();
        fake.exits[0] = cases[i].exit;
        fake.suberror = cases[i].suberror;
        fake.run_errno = cases[i].run_errno;
        assert_int_equal(loop_create(&loop, NULL), 0);
        config.loop = loop;
        if (machine_create(&config, &machine, &err) < 0 ||
            machine_start(machine, ended, NULL, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(loop_run(loop, NULL), 0);
        assert_int_equal(outcome.end, MACHINE_FAILED);
        assert_non_null(strstr(outcome.why.text, cases[i].says));
        assert_null(strchr(outcome.why.text, '\n'));
        machine_dump(machine, out);
        fclose(out);
        assert_non_null(strstr(text, cases[i].says));
        assert_non_null(strstr(text, "engine kvm"));
        assert_non_null(strstr(text, "\nrip  000000000000fff0")); /* as after a reset */
        free(text);
        machine_destroy(machine);
        loop_destroy(loop);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_exit_without_an_answer_leaves_the_state_of_the_cpus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
