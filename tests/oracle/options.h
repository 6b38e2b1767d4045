/* options.h - what programs that compare two CPUs case by case are asked:
 *
 *   PROGRAM [--noise] [--dead-flags] [--hot | --hot-after N] [--seed N] [--count N]
 *           [--seconds N] [--index N] A B */
#ifndef LODGE_ORACLE_OPTIONS_H
#define LODGE_ORACLE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
    uint64_t seed;
    unsigned count;   /* cases of a seed */
    unsigned seconds; /* take further seeds for that long */
    long index;       /* this case alone; -1: all */
    bool noise;       /* random bytes */
    bool dead_flags;  /* flags that nothing would have read may differ */
    unsigned hot_turns; /* as engine_config's; of --hot 1: all units are hot at once */
    const char *names[2]; /* the CPUs */
};

/* Fill o from the command line. count: of cases, when nothing else is asked for. Negative: the
 * command line is wrong. */
int options_parse(int argc, char **argv, unsigned count, struct options *o);

#endif
