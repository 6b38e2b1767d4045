/* How many simple guest instructions an engine executes a second, in millions:
 * loads, stores, arithmetic, branches, a call and a push a round, as compiled
 * integer code has them.
 *
 *   speed [ENGINE [ROUNDS]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "guest.h"

#define ROUND_INSNS 24 /* of the loop below, the called function included */

__asm__(".pushsection .rodata\n"
        ".intel_syntax noprefix\n"
        "speed_begin:\n"
        "1: mov rax, [rbx]\n"
        "   add rax, rcx\n"
        "   mov [rbx + 8], rax\n"
        "   lea rdx, [rax + rcx * 4 + 3]\n"
        "   xor edx, esi\n"
        "   shl edx, 3\n"
        "   movzx esi, dl\n"
        "   and eax, 0xff\n"
        "   cmp eax, esi\n"
        "   jae 2f\n"
        "   sub esi, 1\n"
        "2: mov r8d, [rbx + rax * 4 + 16]\n"
        "   test r8d, r8d\n"
        "   jnz 3f\n"
        "   or esi, 1\n"
        "3: push rsi\n"
        "   call 4f\n"
        "   pop rdi\n"
        "   inc rcx\n"
        "   dec rbp\n"
        "   jnz 1b\n"
        "   int3\n"
        "4: mov r9, rdi\n"
        "   imul r9d, r9d, 17\n"
        "   add [rbx + 24], r9d\n"
        "   ret\n"
        "speed_end:\n"
        ".att_syntax\n"
        ".popsection\n");
extern const uint8_t speed_begin[], speed_end[];

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* other load does not count */
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    static struct image_memory memory;
    const char *engine = argc > 1 ? argv[1] : "interpret";
    const uint64_t rounds = argc > 2 ? strtoull(argv[2], NULL, 0) : 4000000;
    struct image image = {.mode = X86_MODE_64, .rip = IMAGE_CODE, .rflags = X86_FLAGS_ONE | X86_IF,
                          .fpu = {.fcw = 0x37f, .mxcsr = 0x1f80}};
    struct guest *guest;
    struct error err;
    double seconds;

    /* Not the first page: it and the code would share an entry of the TLB. */
    image.gpr[X86_RBX] = IMAGE_DATA + IMAGE_PAGE;
    image.gpr[X86_RSP] = IMAGE_DATA + IMAGE_PAGE + 0x800;
    image.gpr[X86_RBP] = rounds;
    memset(memory.code, 0xcc, sizeof(memory.code));
    memcpy(memory.code, speed_begin, (size_t)(speed_end - speed_begin));
    memset(memory.data, 1, sizeof(memory.data));
    if (guest_open(engine, NULL, 0, &guest, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    seconds = -now();
    if (guest_run(guest, &image, &memory, 0, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    seconds += now();
    if (image.vector != X86_BP || image.gpr[X86_RBP]) {
        fprintf(stderr, "the loop did not end as it should\n");
        return 1;
    }
    printf("%s: %.0f million instructions a second\n", engine,
           (double)(rounds * ROUND_INSNS) / seconds / 1e6);
    guest_close(guest);
    return 0;
}
