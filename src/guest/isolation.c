#include "guest/isolation.h"

#include <string.h>

#include "base/bytes.h"
#include "guest/guest-private.h"

/* The default is the first. */
static const struct isolation *const isolations[] = {&container_isolation, &vm_isolation};

int isolation_find(const char *name, const struct isolation **ret_isolation, struct error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(isolations); i++)
        if (!name || !strcmp(isolations[i]->name, name)) {
            *ret_isolation = isolations[i];
            return 0;
        }
    return error_set(err, EINVAL, "the isolation '%.60s' is not container or vm", name);
}

const struct isolation *isolation_of(const struct guest *guest)
{
    const struct isolation *isolation = isolations[0];

    isolation_find(guest_text(guest, "isolation"), &isolation, NULL);
    return isolation;
}
