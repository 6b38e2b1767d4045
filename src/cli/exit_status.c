#include "cli/exit_status.h"

#include <stddef.h>

const struct exit_status exit_statuses[] = {
    {"0", "the guest powered off, or rebooted under --no-reboot"},
    {"1", "Lodge failed; a line on the standard error says why"},
    {"2", "the command line is wrong"},
    {"4", "the guest crashed: a CPU took a triple fault"},
    {"130", "quit from the terminal (Ctrl-] q) or by SIGINT"},
    {"143", "ended by SIGTERM or SIGHUP"},
    {"2n+1", "the guest wrote n to the isa-debug-exit port 0xf4 (modulo 256)"},
    {NULL, NULL},
};

int exit_status_of(const struct machine_outcome *outcome)
{
    switch (outcome->end) {
    case MACHINE_TRIPLE_FAULT: return EXIT_STATUS_TRIPLE_FAULT;
    case MACHINE_DEBUG_EXIT: return (int)((outcome->code << 1 | 1) & 0xff);
    default: return 0;
    }
}
