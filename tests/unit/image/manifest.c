#include "unit.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "image/manifest.h"

#define HEX64  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "sha256:" HEX64
#define BLOB   "{\"mediaType\":\"a/b\",\"digest\":\"" DIGEST "\",\"size\":7}"

static void a_manifest_is_read_and_written_back(void **state)
{
    static const char text[] = "{\"schemaVersion\":2,\"mediaType\":\"" MEDIA_MANIFEST
                               "\",\"config\":" BLOB ",\"layers\":[" BLOB "," BLOB "]}";
    struct manifest manifest, again;
    char *written;

    (void)state;
    assert_int_equal(manifest_read(text, strlen(text), &manifest, NULL), 0);
    assert_int_equal(manifest.layer_count, 2);
    assert_int_equal(manifest.layers[1].size, 7);
    assert_string_equal(manifest.config.media_type, "a/b");
    assert_int_equal(manifest_write(&manifest, &written, NULL), 0);
    assert_int_equal(manifest_read(written, strlen(written), &again, NULL), 0);
    assert_string_equal(again.layers[0].digest.text, DIGEST);
    free(written);
    manifest_release(&again);
    manifest_release(&manifest);
}

static void errors_name_the_member(void **state)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"[]", "object"},
        {"{}", "schemaVersion"},
        {"{\"schemaVersion\":\"2\"}", "schemaVersion"},
        {"{\"schemaVersion\":2}", "config"},
        {"{\"schemaVersion\":2,\"config\":" BLOB "}", "layers"},
        {"{\"schemaVersion\":2,\"config\":" BLOB ",\"layers\":[" BLOB ",3]}", "layers[1]"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":7,\"size\":1}}", "config: digest"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\",\"size\":-1}}", "size"},
        {"{\"schemaVersion\":2,\"config\":{\"digest\":\"" DIGEST "\",\"size\":1.5}}", "size"},
        {"{\"schemaVersion\":2", "line"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct manifest manifest;
        struct error err = {0};

        assert_int_equal(manifest_read(rows[i].text, strlen(rows[i].text), &manifest, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, rows[i].word));
    }
}

static void a_platform_is_chosen_from_an_index(void **state)
{
    static const char text[] =
        "{\"schemaVersion\":2,\"manifests\":["
        "{\"digest\":\"" DIGEST "\",\"size\":1,\"platform\":{\"os\":\"linux\",\"architecture\":"
        "\"arm\",\"variant\":\"v6\"}},"
        "{\"digest\":\"" DIGEST "\",\"size\":2,\"platform\":{\"os\":\"linux\",\"architecture\":"
        "\"arm\",\"variant\":\"v7\"}},"
        "{\"digest\":\"" DIGEST "\",\"size\":3,\"platform\":{\"os\":\"linux\",\"architecture\":"
        "\"amd64\"}}]}";
    static const struct {
        const char *platform;
        uint64_t size; /* of the item; 0: none */
    } rows[] = {{NULL, 3},           {"linux/amd64", 3}, {"linux/arm", 1},
                {"linux/arm/v7", 2}, {"linux/arm64", 0}, {"other/arm", 0}};
    struct index index;

    (void)state;
    assert_int_equal(index_read(text, strlen(text), &index, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct descriptor *chosen;
        struct platform platform;

        assert_int_equal(platform_parse(rows[i].platform, &platform, NULL), 0);
        chosen = index_choose(&index, &platform);
        assert_int_equal(chosen ? chosen->size : 0, rows[i].size);
    }
    index_release(&index);
}

static void what_is_no_platform_is_refused(void **state)
{
    static const char *const texts[] = {
        "", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/amd64/", "Linux/amd64"};
    struct platform platform;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        assert_int_equal(platform_parse(texts[i], &platform, NULL), -EINVAL);
}

static void a_configuration_has_what_a_guest_starts_with(void **state)
{
    static const char text[] =
        "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":{\"Env\":[\"A=1\",\"B=2\"],"
        "\"Cmd\":null,\"Entrypoint\":[\"/e\"],\"User\":\"7:8\",\"ExposedPorts\":{\"80/tcp\":{}}},"
        "\"rootfs\":{\"diff_ids\":[\"" DIGEST "\"]}}";
    struct image_config config;

    (void)state;
    assert_int_equal(image_config_read(text, strlen(text), &config, NULL), 0);
    assert_string_equal(config.environment[1], "B=2");
    assert_null(config.environment[2]);
    assert_null(config.command[0]);
    assert_string_equal(config.entrypoint[0], "/e");
    assert_string_equal(config.exposed_ports[0], "80/tcp");
    assert_string_equal(config.user, "7:8");
    assert_string_equal(config.working_directory, "");
    assert_int_equal(config.diff_count, 1);
    image_config_release(&config);
    /* Nothing but an object is needed. */
    assert_int_equal(image_config_read("{}", 2, &config, NULL), 0);
    assert_null(config.volumes[0]);
    image_config_release(&config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_manifest_is_read_and_written_back),
        cmocka_unit_test(errors_name_the_member),
        cmocka_unit_test(a_platform_is_chosen_from_an_index),
        cmocka_unit_test(what_is_no_platform_is_refused),
        cmocka_unit_test(a_configuration_has_what_a_guest_starts_with),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
