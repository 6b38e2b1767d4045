#include "base/thread.h"

int thread_start(pthread_t *ret_thread, void *(*run)(void *opaque), void *opaque)
{
    pthread_attr_t attributes;
    int code = pthread_attr_init(&attributes);

    if (code)
        return code;
    code = pthread_attr_setstacksize(&attributes, THREAD_STACK);
    if (code == 0)
        code = pthread_create(ret_thread, &attributes, run, opaque);
    pthread_attr_destroy(&attributes);
    return code;
}
