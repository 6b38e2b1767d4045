/* channel.h - what the host and Lodge's init in a virtual machine say to each
 * other over a byte stream: frames of a type, a length and that many bytes. Shared
 * with guest/lodge-init.c, so it needs nothing of Lodge. */
#ifndef LODGE_GUEST_CHANNEL_H
#define LODGE_GUEST_CHANNEL_H

#include <stdint.h>

/* The guest's first words. What comes before is the kernel's log. */
#define CHANNEL_HELLO "\x1bLODGE-INIT-1\n"

enum channel_type {
    /* From the guest. */
    CHANNEL_OUTPUT = 1, /* bytes for the standard output */
    CHANNEL_ERROR,      /* bytes for the standard error */
    CHANNEL_CREDIT,     /* u16: so many bytes of input were consumed */
    CHANNEL_EXIT,       /* u8: the command's exit status; the last frame */
    CHANNEL_FAILURE,    /* text: why the command could not be started; EXIT does not follow */
    /* From the host. */
    CHANNEL_INPUT,  /* bytes for the standard input; no byte: its end */
    CHANNEL_SIGNAL, /* u8: a signal for the command */
    CHANNEL_SIZE,   /* u16 rows, u16 columns of the terminal */
};

enum {
    CHANNEL_HEADER = 3, /* u8 type, u16 length, little-endian */
    CHANNEL_DATA_MAX = 4096,
    /* Input bytes under way at most: less than a terminal's buffer, as a serial
     * port has no other flow control. */
    CHANNEL_WINDOW = 2048,
};

/*
 * What to run is in the file CHANNEL_CONFIG of the initial RAM disk: records of one
 * letter and a text ended by NUL.
 *     A argument    E variable     W working directory   U uid   G gid   S further gid
 *     H host name   T "1": with a terminal
 */
#define CHANNEL_INIT   "/.lodge/init"
#define CHANNEL_CONFIG "/.lodge/config"

static inline void channel_header(uint8_t header[CHANNEL_HEADER], uint8_t type, uint16_t length)
{
    header[0] = type;
    header[1] = (uint8_t)length;
    header[2] = (uint8_t)(length >> 8);
}

#endif
