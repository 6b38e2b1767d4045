/* init_program.h - Lodge's init (guest/), a static program that is linked in as bytes. A virtual
 * machine's kernel runs it as INIT_OF_MACHINE; by any other path it runs the command behind it as
 * the first process of a container does (--init). Shared with guest/. */
#ifndef LODGE_GUEST_INIT_PROGRAM_H
#define LODGE_GUEST_INIT_PROGRAM_H

#define INIT_OF_MACHINE   "/init"
#define INIT_OF_CONTAINER "/dev/lodge-init" /* /dev is never the image's own */

extern const char lodge_init_start[] __asm__("_binary_guest_lodge_init_start");
extern const char lodge_init_end[] __asm__("_binary_guest_lodge_init_end");

#endif
