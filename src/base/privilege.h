/* privilege.h - who the program runs as, as far as the kernel asks: root of the host, or of a user
 * namespace only (user_namespaces(7)), or an ordinary user. */
#ifndef LODGE_BASE_PRIVILEGE_H
#define LODGE_BASE_PRIVILEGE_H

#include <stdbool.h>

/* Root of the host: all ids are there, and mean the same. */
bool privilege_is_full(void);

/* Write into path the directory name below that of the program's own data: /var/lib/lodge for root
 * of the host, else $XDG_DATA_HOME/lodge or ~/.local/share/lodge. False: it is too long, or
 * there is no home. */
bool privilege_data_path(const char *name, char *path, unsigned size);

#endif
