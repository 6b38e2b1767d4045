#include "unit.h"

#include "base/bytes.h"
#include "image/digest.h"

/* FIPS 180-4 test vectors for "abc". */
#define ABC_256 "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ABC_512                                                                                    \
    "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"                      \
    "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"

static void digests_are_those_of_the_standard(void **state)
{
    static const char *const expected[] = {ABC_256, ABC_512};
    struct digest like, digest;

    (void)state;
    assert_int_equal(digest_of(NULL, "abc", 3, &digest, NULL), 0);
    assert_string_equal(digest.text, ABC_256);
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(digest_parse(expected[i], &like, NULL), 0);
        assert_int_equal(digest_of(&like, "abc", 3, &digest, NULL), 0);
        assert_true(digest_equal(&digest, &like));
        assert_string_equal(digest_hex(&digest), expected[i] + 7);
    }
}

static void pieces_hash_like_the_whole(void **state)
{
    struct hasher *hasher;
    struct digest digest;

    (void)state;
    assert_int_equal(hasher_create(NULL, &hasher, NULL), 0);
    hasher_update(hasher, "a", 1);
    hasher_update(hasher, "", 0);
    hasher_update(hasher, "bc", 2);
    hasher_finish(hasher, &digest);
    hasher_destroy(hasher);
    assert_string_equal(digest.text, ABC_256);
}

static void what_is_no_digest_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "sha256:",
        "sha256",
        ABC_256 "0",
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha256:../../../../../../../../../../../../../../../../../../../../../..",
        "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct digest digest = {"untouched"};

        assert_int_equal(digest_parse(texts[i], &digest, NULL), -EINVAL);
        assert_string_equal(digest.text, "untouched");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_the_standard),
        cmocka_unit_test(pieces_hash_like_the_whole),
        cmocka_unit_test(what_is_no_digest_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
