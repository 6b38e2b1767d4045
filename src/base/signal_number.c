#include "base/signal_number.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNALS = 64 };

int signal_number(const char *text)
{
    int base = 0;

    if (!strncmp(text, "SIG", 3))
        text += 3;
    for (int i = 1; i < 32; i++)
        if (sigabbrev_np(i) && !strcmp(sigabbrev_np(i), text))
            return i;
    if (!strcmp(text, "RTMIN"))
        return SIGRTMIN;
    if (!strncmp(text, "RTMIN+", 6)) {
        base = SIGRTMIN;
        text += 6;
    }
    if (!*text || strlen(text) > 2 || text[strspn(text, "0123456789")])
        return -1;
    base += atoi(text);
    return base > 0 && base <= SIGNALS ? base : -1;
}
