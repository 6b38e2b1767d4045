/* Floating point, compiled twice: SUFFIX tells for which instructions. */
#include <math.h>
#include <string.h>

#include "workload.h"

#define NAME2(name, suffix) name##_##suffix
#define NAME1(name, suffix) NAME2(name, suffix)
#define NAME(name)          NAME1(name, SUFFIX)

static uint64_t bits(double value)
{
    uint64_t result;

    memcpy(&result, &value, sizeof(result));
    return result;
}

/* Bodies that attract each other, in steps of time. */
uint64_t NAME(nbody)(void)
{
    enum { BODIES = 5 };
    double position[BODIES][3], speed[BODIES][3] = {0}, mass[BODIES], sum = 0;

    for (int i = 0; i < BODIES; i++) {
        mass[i] = 1.0 / (i + 1);
        for (int k = 0; k < 3; k++)
            position[i][k] = (i + 1) * (k + 2) % 7 + 0.25 * i;
    }
    for (int step = 0; step < 360000; step++) {
        for (int i = 0; i < BODIES; i++)
            for (int j = i + 1; j < BODIES; j++) {
                double d[3], square = 0.01, pull;

                for (int k = 0; k < 3; k++) {
                    d[k] = position[i][k] - position[j][k];
                    square += d[k] * d[k];
                }
                pull = 0.0001 / (square * sqrt(square));
                for (int k = 0; k < 3; k++) {
                    speed[i][k] -= d[k] * mass[j] * pull;
                    speed[j][k] += d[k] * mass[i] * pull;
                }
            }
        for (int i = 0; i < BODIES; i++)
            for (int k = 0; k < 3; k++)
                position[i][k] += 0.0001 * speed[i][k];
    }
    for (int i = 0; i < BODIES; i++)
        sum += position[i][0];
    return bits(sum);
}

uint64_t NAME(matmul)(void)
{
    enum { N = 320 };
    static double a[N][N], b[N][N], c[N][N];

    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++) {
            a[i][k] = i + k;
            b[i][k] = i - k;
            c[i][k] = 0;
        }
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < N; i++)
            for (int k = 0; k < N; k++)
                for (int j = 0; j < N; j++)
                    c[i][j] += a[i][k] * b[k][j];
    return bits(c[N / 2][N / 3]);
}

/* Sixteen points at a time, so that the compiler may use whole vectors. */
uint64_t NAME(mandelbrot)(void)
{
    enum { SIDE = 512, LANES = 16, STEPS = 100 };
    uint64_t inside = 0;

    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x += LANES) {
            float real[LANES], imaginary[LANES], cr[LANES];
            const float ci = -1.0f + 2.0f * (float)y / SIDE;
            int32_t count[LANES] = {0};

            for (int i = 0; i < LANES; i++) {
                cr[i] = -1.5f + 2.0f * (float)(x + i) / SIDE;
                real[i] = imaginary[i] = 0;
            }
            for (int step = 0; step < STEPS; step++)
                for (int i = 0; i < LANES; i++) {
                    float rr = real[i] * real[i], ii = imaginary[i] * imaginary[i];
                    float next = rr - ii + cr[i];

                    imaginary[i] = 2 * real[i] * imaginary[i] + ci;
                    real[i] = next > 4 ? 4 : next < -4 ? -4 : next;
                    imaginary[i] = imaginary[i] > 4 ? 4 : imaginary[i] < -4 ? -4 : imaginary[i];
                    count[i] += rr + ii < 4;
                }
            for (int i = 0; i < LANES; i++)
                inside += (uint64_t)count[i];
        }
    return inside;
}
