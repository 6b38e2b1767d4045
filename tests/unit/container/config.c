/* config.json into structs: what is read, and what is refused by name. */
#include "../unit.h"

#include <stdio.h>

#include "container/config.h"

/* '"' is written as "'". */
static int read_text(struct config *config, const char *text, struct error *err)
{
    char copy[4096];
    size_t length = strlen(text);

    assert_true(length < sizeof(copy));
    for (size_t i = 0; i <= length; i++)
        copy[i] = text[i] == '\'' ? '"' : text[i];
    return config_read(config, copy, length, err);
}

#define BEGIN "{'ociVersion':'1.2.0','root':{'path':'r'},'process':{'cwd':'/','args':['x']"
#define MOUNT "'linux':{'namespaces':[{'type':'mount'}]"

static void a_small_configuration_is_read_with_nothing_given(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config, BEGIN "}," MOUNT "}}", NULL), 0);
    assert_string_equal(config.root->path, "r");
    assert_false(config.root->readonly);
    assert_int_equal(config.process->args.count, 1);
    assert_null(config.process->capabilities);
    assert_null(config.hooks);
    assert_null(config.linux_->resources);
    assert_false(config.process->oom_score_adj.given);
    assert_non_null(config_namespace(&config, NAMESPACE_MOUNT));
    assert_null(config_namespace(&config, NAMESPACE_PID));
    config_release(&config);
}

static void unknown_names_and_null_are_passed_over(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config,
                               BEGIN ",'env':null,'x':{'y':[1]}},'solaris':{},'hostname':null,"
                                     "'annotations':{'a':'b'}," MOUNT "}}",
                               NULL),
                     0);
    assert_int_equal(config.process->env.count, 0);
    assert_string_equal(config.annotations.items[0].value, "b");
    config_release(&config);
}

static void numbers_beyond_64_bits_saturate(void **state)
{
    struct config config;

    (void)state;
    assert_int_equal(read_text(&config,
                               BEGIN ",'rlimits':[{'type':'RLIMIT_CORE','soft':1,"
                                     "'hard':18446744073709551615}]}," MOUNT "}}",
                               NULL),
                     0);
    assert_true(config.process->rlimits.items[0].hard.value == INT64_MAX);
    config_release(&config);
}

static void each_wrong_field_is_named(void **state)
{
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"{", "line 1"},
        {"[]", "must be an object"},
        {"{}", "ociVersion"},
        {BEGIN ",'oomScoreAdj':1001}," MOUNT "}}", "process.oomScoreAdj"},
        {BEGIN ",'oomScoreAdj':1.5}," MOUNT "}}", "process.oomScoreAdj"},
        {BEGIN ",'env':['a',1]}," MOUNT "}}", "process.env[1]"},
        {BEGIN ",'user':{'additionalGids':[-1]}}," MOUNT "}}", "process.user.additionalGids[0]"},
        {BEGIN "},'mounts':[{'destination':'/a'},{'destination':'b'}]," MOUNT "}}",
         "mounts[1].destination"},
        {BEGIN "}," MOUNT ",'sysctl':{'kernel.panic':'0'}}}", "kernel.panic"},
        {BEGIN "}," MOUNT ",'sysctl':{'net/../kernel/panic':'0'}}}", "net/../kernel/panic"},
        {BEGIN "}," MOUNT ",'resources':{'unified':{'a/b.c':'1'}}}}", "linux.resources.unified"},
        {BEGIN "}," MOUNT ",'resources':{'rdma':{'mlx':{'hcaHandles':-1}}}}}",
         "linux.resources.rdma"},
        {BEGIN "}," MOUNT ",'intelRdt':{}}}", "linux.intelRdt"},
        {BEGIN "},'linux':{'maskedPaths':['/a']}}", "linux.maskedPaths"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config config;
        struct error err = {0};

        assert_true(read_text(&config, cases[i].text, &err) < 0);
        if (!strstr(err.text, cases[i].named))
            fail_msg("\"%s\" does not name %s", err.text, cases[i].named);
        assert_null(strchr(err.text, '\n'));
    }
}

static void deep_nesting_is_no_stack_overflow(void **state)
{
    static char text[1 << 20];
    struct config config;

    (void)state;
    memset(text, '[', sizeof(text) - 1);
    assert_true(config_read(&config, text, sizeof(text) - 1, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_configuration_is_read_with_nothing_given),
        cmocka_unit_test(unknown_names_and_null_are_passed_over),
        cmocka_unit_test(numbers_beyond_64_bits_saturate),
        cmocka_unit_test(each_wrong_field_is_named),
        cmocka_unit_test(deep_nesting_is_no_stack_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
