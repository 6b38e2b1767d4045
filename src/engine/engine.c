#include "engine/engine.h"

#include <string.h>

#include "engine/interpret/interpret.h"
#include "engine/kvm/kvm.h"
#include "engine/translate/translate.h"

const struct engine_ops *const engine_table[] = {&kvm_engine, &translate_engine, &interpret_engine,
                                                NULL};

int engine_find(const char *name, const struct engine_ops **ret_ops, struct error *err)
{
    const bool any = !strcmp(name, "auto");
    char names[128] = "auto";
    struct error why;

    for (const struct engine_ops *const *ops = engine_table; *ops; ops++) {
        if (any ? (*ops)->probe(&why) == 0 : !strcmp((*ops)->name, name)) {
            *ret_ops = *ops;
            return 0;
        }
        strncat(names, ", ", sizeof(names) - strlen(names) - 1);
        strncat(names, (*ops)->name, sizeof(names) - strlen(names) - 1);
    }
    return error_set(err, EINVAL, "there is no engine '%s'; it is one of %s", name, names);
}
