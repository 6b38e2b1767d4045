/* signal_number.h - signals as people write them. */
#ifndef LODGE_BASE_SIGNAL_NUMBER_H
#define LODGE_BASE_SIGNAL_NUMBER_H

/* "TERM", "SIGTERM", "15" or "RTMIN+3"; -1 when it is none. */
int signal_number(const char *text);

#endif
