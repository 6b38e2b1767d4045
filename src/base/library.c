#include "base/library.h"

#include <dlfcn.h>
#include <stddef.h>

int library_load(const struct library *library, struct error *err)
{
    /* Never closed: threads may be inside it for as long as the process lives. */
    void *handle = dlopen(library->soname, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        return error_set(err, ENOENT, "%s cannot be loaded (%s); install the package %s",
                         library->soname, dlerror(), library->package);
    for (const struct library_symbol *s = library->symbols; s->name; s++) {
        void *address = dlsym(handle, s->name);

        if (!address)
            return error_set(err, ENOENT, "%s has no %s; the package %s is too old",
                             library->soname, s->name, library->package);
        __atomic_store_n(s->slot, address, __ATOMIC_RELEASE);
    }
    return 0;
}
