/* dbus.h - a client of a message bus (D-Bus specification 0.41), as far as asking systemd for
 * control groups needs it: calls with a few arguments, and signals. The program is linked
 * statically, for which there is no libsystemd. */
#ifndef LODGE_CONTAINER_DBUS_H
#define LODGE_CONTAINER_DBUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DBUS_BODY_MAX = 8192, DBUS_MESSAGE_MAX = 1 << 20 };

/* Arguments of a call, each put behind the one before (Marshaling). What does not fit makes the
 * call fail. */
struct dbus_body {
    uint8_t bytes[DBUS_BODY_MAX];
    size_t length;
    bool overflow;
};

void dbus_put_u32(struct dbus_body *body, uint32_t value); /* also a BOOLEAN */
void dbus_put_u64(struct dbus_body *body, uint64_t value);
void dbus_put_string(struct dbus_body *body, const char *text); /* also an OBJECT_PATH */
void dbus_put_signature(struct dbus_body *body, const char *signature);
void dbus_put_align(struct dbus_body *body, size_t alignment);
/* An array: its elements are put between begin and end. alignment: of the elements. */
struct dbus_array {
    size_t length_at, begin;
};
struct dbus_array dbus_begin_array(struct dbus_body *body, size_t alignment);
void dbus_end_array(struct dbus_body *body, const struct dbus_array *array);

/* A message that came in. Texts point into it, and are "" when it has none. */
struct dbus_message {
    uint8_t type; /* 1 call, 2 reply, 3 error, 4 signal */
    uint32_t reply_serial;
    const char *member, *error_name, *signature;
    const uint8_t *body;
    size_t body_length;
};

/* The whole message at bytes. -EPROTO: it is none. */
int dbus_parse(const uint8_t *bytes, size_t length, struct dbus_message *ret_message,
               struct error *err);
/* The string or object path at *offset, or in a variant that the body begins with,
 * and *offset behind it; NULL when there is none. */
const char *dbus_get_string(const struct dbus_message *message, size_t *offset);
bool dbus_get_u32(const struct dbus_message *message, size_t *offset, uint32_t *ret_value);

struct dbus;

/* Connect to the system's bus, or to the user's. -ENOENT with words where there is none. */
int dbus_connect(bool user, struct dbus **ret_bus, struct error *err);
void dbus_close(struct dbus *bus);

/* Whom to call what. */
struct dbus_call {
    const char *destination, *path, *interface, *member;
    const char *signature; /* of the arguments; "" when there are none */
};

/* Call, and wait for the answer, which is valid until the next call. body NULL: no arguments. An
 * error that comes back is -EREMOTEIO. Signals that come meanwhile are handed to signalled. */
int dbus_call(struct dbus *bus, const struct dbus_call *call, const struct dbus_body *body,
              struct dbus_message *ret_reply, struct error *err);
/* Whom signals are handed to. */
void dbus_on_signal(struct dbus *bus,
                    void (*signalled)(void *opaque, const struct dbus_message *message),
                    void *opaque);
/* Read messages until *done; -ETIMEDOUT after 30 seconds without one. */
int dbus_wait(struct dbus *bus, const bool *done, struct error *err);

#endif
