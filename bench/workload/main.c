/* workload NAME...|all: run each and print its name, nanoseconds and checksum. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "workload.h"

static const struct workload {
    const char *name;
    workload_fn *run;
    const char *needs; /* a CPU feature, or NULL */
} workloads[] = {
    {"sieve", sieve, NULL},
    {"queens", queens, NULL},
    {"crc32", crc32, NULL},
    {"nbody-sse2", nbody_sse2, NULL},
    {"matmul-sse2", matmul_sse2, NULL},
    {"mandelbrot-sse2", mandelbrot_sse2, NULL},
    {"nbody-avx2", nbody_avx2, "avx2"},
    {"matmul-avx2", matmul_avx2, "avx2"},
    {"mandelbrot-avx2", mandelbrot_avx2, "avx2"},
    {"sha256", sha256, NULL},
    {"gzip", gzip, NULL},
    {"copy", copy, NULL},
    {"chase", chase, NULL},
    {"bytecode", bytecode, NULL},
    {"shell-loop", shell_loop, NULL},
    {"fib", fib, NULL},
    {"getpid", system_calls, NULL},
    {"ping-pong", ping_pong, NULL},
    {"touch", touch, NULL},
    {"fork-exec", fork_exec, NULL},
    {"parallel", parallel, NULL},
};

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int offered(const char *feature)
{
    return !feature || (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "nothing"))
        return 0;
    for (int i = 1; i < argc; i++)
        for (size_t k = 0; k < sizeof(workloads) / sizeof(workloads[0]); k++) {
            const struct workload *w = &workloads[k];
            uint64_t start, sum;

            if ((strcmp(argv[i], "all") && strcmp(argv[i], w->name)) || !offered(w->needs))
                continue;
            start = now();
            sum = w->run();
            printf("BENCH %s %" PRIu64 " %" PRIx64 "\n", w->name, now() - start, sum);
            fflush(stdout);
        }
    return 0;
}
