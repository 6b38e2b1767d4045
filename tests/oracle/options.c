#include "options.h"

#include <getopt.h>
#include <stdlib.h>

int options_parse(int argc, char **argv, unsigned count, struct options *o)
{
    static const struct option names[] = {
        {"noise", no_argument, NULL, 'z'},        {"dead-flags", no_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},   {"count", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'}, {"index", required_argument, NULL, 'i'},
        {"hot", no_argument, NULL, 'h'},          {"hot-after", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    int c;

    *o = (struct options){.seed = 1, .count = count, .index = -1};
    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1)
        switch (c) {
        case 'z': o->noise = true; break;
        case 'd': o->dead_flags = true; break;
        case 'h': o->hot_turns = 1; break;
        case 'a': o->hot_turns = (unsigned)strtoul(optarg, NULL, 0); break;
        case 's': o->seed = strtoull(optarg, NULL, 0); break;
        case 'n': o->count = (unsigned)strtoul(optarg, NULL, 0); break;
        case 't': o->seconds = (unsigned)strtoul(optarg, NULL, 0); break;
        case 'i': o->index = strtol(optarg, NULL, 0); break;
        default: return -1;
        }
    if (optind + 2 != argc)
        return -1;
    o->names[0] = argv[optind];
    o->names[1] = argv[optind + 1];
    return 0;
}
