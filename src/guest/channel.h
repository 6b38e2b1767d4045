/* channel.h - what the host and Lodge's init in a virtual machine say to each other:
 * sessions, each over a port of its own of the virtio console. A session runs one command. Port 0
 * has the guest's own command, after which the machine ends; the others have further ones.
 * Shared with guest/, so it needs nothing of Lodge.
 *
 *     host    TASK... RUN            what to run, in parts; then the word to do it
 *     guest   CHANNEL_HELLO, nonce   of that RUN: what came before was for somebody else
 *     guest   FAILURE                or: STARTED, OUTPUT, ERROR, CREDIT ... EXIT
 *     host    INPUT, SIGNAL, SIZE    meanwhile
 *
 * A host that went away in the middle of a frame is followed by one that sends
 * CHANNEL_FLUSH bytes of CHANNEL_NOTHING first. */
#ifndef LODGE_GUEST_CHANNEL_H
#define LODGE_GUEST_CHANNEL_H

#include <stdint.h>

#define CHANNEL_HELLO "\x1bLODGE-2" /* 8 bytes; then the nonce */
#define CHANNEL_FILE  "file"
#define CHANNEL_PORT  "lodge.%u"    /* the ports' names, and those of their sockets */

enum channel_type {
    CHANNEL_NOTHING, /* a byte alone, without a length: to be skipped */
    /* From the guest. */
    CHANNEL_STARTED, /* the command runs */
    CHANNEL_OUTPUT,  /* bytes for the standard output */
    CHANNEL_ERROR,   /* bytes for the standard error */
    CHANNEL_CREDIT,  /* u16: so many bytes of input were consumed */
    CHANNEL_EXIT,    /* u8: the command's exit status; the last frame */
    CHANNEL_FAILURE, /* text: why the command could not be started; the last frame */
    /* From the host. */
    CHANNEL_TASK,    /* a part of the task's text */
    CHANNEL_RUN,     /* u32: a nonce */
    CHANNEL_INPUT,   /* bytes for the standard input; no byte: its end */
    CHANNEL_SIGNAL,  /* u8: a signal for the command */
    CHANNEL_SIZE,    /* u16 rows, u16 columns of the terminal */
};

enum {
    CHANNEL_PORTS = 8,
    CHANNEL_HEADER = 3, /* u8 type, u16 length, little-endian */
    CHANNEL_DATA_MAX = 4096,
    CHANNEL_FLUSH = CHANNEL_HEADER + CHANNEL_DATA_MAX,
    CHANNEL_TASK_MAX = 1 << 20, /* all parts together */
    CHANNEL_WINDOW = 16384,     /* input bytes under way at most */
    CHANNEL_HELLO_SIZE = 12,
};

/*
 * A task is records of one letter and a text ended by NUL.
 *
 *     A argument    E variable     W working directory   U uid   G gid   S further gid   K umask
 *     R "TYPE SOFT HARD": a limit (setrlimit(2)); -1: none
 *     T "1": with a terminal       L "list": list the processes instead of running one; "table":
 *     by columns (processes.h), each an A
 *     C "out", A path: instead of running a command, send what is there (archive.h) to the
 *         output. C "in", A path, A name: take what is called so from the input, to the path; what
 *         is printed is why that failed
 *
 * On port 0 the machine comes before:
 *
 *     H host name                  N "dhcp": the network card is told its address
 *     F "PATH\nCONTENT": a file that covers the root's own
 *     V "TAG TARGET" or v (read-only): a shared folder; B or b: the file CHANNEL_FILE of one
 *     M "TARGET OPTIONS": a tmpfs; or m: with what the root has there
 *     O: the root cannot be written from here on
 *     I "1": the command is not the first process, it is the child of one that reaps
 *     Y "NAME=VALUE": a parameter of the kernel (sysctl(8))
 */

static inline void channel_header(uint8_t header[CHANNEL_HEADER], uint8_t type, uint16_t length)
{
    header[0] = type;
    header[1] = (uint8_t)length;
    header[2] = (uint8_t)(length >> 8);
}

#endif
