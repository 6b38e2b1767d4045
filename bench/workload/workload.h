/* workload.h - small programs whose time is compared natively, under a peer and
 * under Lodge. Each does a fixed amount of work, a tenth of a second or so on
 * plain hardware, and returns a checksum of what it computed: a machine that
 * is fast and wrong is found out. */
#ifndef LODGE_BENCH_WORKLOAD_H
#define LODGE_BENCH_WORKLOAD_H

#include <stdint.h>

typedef uint64_t workload_fn(void);

/* compute.c */
workload_fn sieve, queens, crc32, bytecode, fib;
/* float.c, compiled once for SSE2 and once for AVX2 with FMA */
workload_fn nbody_sse2, matmul_sse2, mandelbrot_sse2;
workload_fn nbody_avx2, matmul_avx2, mandelbrot_avx2;
/* memory.c */
workload_fn copy, chase, touch;
/* process.c */
workload_fn system_calls, ping_pong, fork_exec, sha256, gzip, shell_loop, parallel;

#endif
