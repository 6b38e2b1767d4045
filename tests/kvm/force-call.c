/* force-call PID NUMBER: make a thread of another program, which waits in a system call, make
 * the call of that number, all arguments 0, instead of going on; as code would that has taken
 * the program over. Status 0: it was told to. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#define SYSCALL_SIZE 2 /* of the instruction, which RIP has passed */

static int fail(const char *what)
{
    perror(what);
    return 1;
}

int main(int argc, char **argv)
{
    struct user_regs_struct registers;
    pid_t pid;

    if (argc != 3) {
        fputs("usage: force-call PID NUMBER\n", stderr);
        return 2;
    }
    pid = (pid_t)atoi(argv[1]);
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
        return fail("seize");
    if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, NULL, __WALL) < 0)
        return fail("interrupt");
    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) < 0)
        return fail("read registers");
    registers.orig_rax = (unsigned long long)-1; /* the call it waits in is not begun again */
    registers.rax = (unsigned long long)atoi(argv[2]);
    registers.rip -= SYSCALL_SIZE;
    registers.rdi = registers.rsi = registers.rdx = registers.r10 = registers.r8 = registers.r9 = 0;
    if (ptrace(PTRACE_SETREGS, pid, NULL, &registers) < 0)
        return fail("write registers");
    if (ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0)
        return fail("let go");
    return 0;
}
