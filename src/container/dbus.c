#include "container/dbus.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "container/socket.h"

/* Message Format */
enum { CALL = 1, REPLY = 2, ERROR = 3, SIGNAL = 4 };
enum { HEADER_FIXED = 16 };
enum {
    FIELD_PATH = 1,
    FIELD_INTERFACE,
    FIELD_MEMBER,
    FIELD_ERROR_NAME,
    FIELD_REPLY_SERIAL,
    FIELD_DESTINATION,
    FIELD_SENDER,
    FIELD_SIGNATURE
};

enum { WAIT_MS = 30000 };

struct dbus {
    int fd; /* owned */
    uint32_t serial;
    uint8_t *bytes; /* what came in and is not taken yet; owned */
    size_t length, taken;
    void (*signalled)(void *opaque, const struct dbus_message *message);
    void *opaque;
};

/* --- Marshaling --- */

static uint8_t *put(struct dbus_body *body, size_t alignment, size_t length)
{
    size_t at = ALIGN_UP(body->length, alignment);

    if (body->overflow || at + length > sizeof(body->bytes)) {
        body->overflow = true;
        return NULL;
    }
    memset(body->bytes + body->length, 0, at + length - body->length);
    body->length = at + length;
    return body->bytes + at;
}

void dbus_put_u32(struct dbus_body *body, uint32_t value)
{
    uint8_t *at = put(body, 4, 4);

    if (at)
        store_le32(at, value);
}

void dbus_put_u64(struct dbus_body *body, uint64_t value)
{
    uint8_t *at = put(body, 8, 8);

    if (at)
        store_le64(at, value);
}

void dbus_put_string(struct dbus_body *body, const char *text)
{
    size_t length = strlen(text);
    uint8_t *at;

    dbus_put_u32(body, (uint32_t)length);
    at = put(body, 1, length + 1);
    if (at)
        memcpy(at, text, length);
}

void dbus_put_signature(struct dbus_body *body, const char *signature)
{
    size_t length = strlen(signature);
    uint8_t *at = put(body, 1, length + 2);

    if (!at)
        return;
    *at = (uint8_t)length;
    memcpy(at + 1, signature, length);
}

void dbus_put_align(struct dbus_body *body, size_t alignment)
{
    put(body, alignment, 0);
}

struct dbus_array dbus_begin_array(struct dbus_body *body, size_t alignment)
{
    struct dbus_array array;

    dbus_put_u32(body, 0);
    array.length_at = body->length - 4;
    dbus_put_align(body, alignment);
    array.begin = body->length;
    return array;
}

void dbus_end_array(struct dbus_body *body, const struct dbus_array *array)
{
    if (!body->overflow)
        store_le32(body->bytes + array->length_at, (uint32_t)(body->length - array->begin));
}

/* --- Messages that come in --- */

/* A length and that many bytes with a NUL behind them, within length; NULL: there is none. */
static const char *string_at(const uint8_t *bytes, size_t length, size_t *offset)
{
    size_t at = ALIGN_UP(*offset, 4), size;

    if (at + 4 > length)
        return NULL;
    size = load_le32(bytes + at);
    if (size >= length - at - 4 || bytes[at + 4 + size] != 0)
        return NULL;
    *offset = at + 4 + size + 1;
    return (const char *)bytes + at + 4;
}

static const char *signature_at(const uint8_t *bytes, size_t length, size_t *offset)
{
    size_t size;

    if (*offset >= length)
        return NULL;
    size = bytes[*offset];
    if (size + 1 >= length - *offset || bytes[*offset + 1 + size] != 0)
        return NULL;
    *offset += size + 2;
    return (const char *)bytes + *offset - size - 1;
}

/* One of the header's fields, a (BYTE, VARIANT). */
static int field_parse(const uint8_t *bytes, size_t length, size_t *offset,
                       struct dbus_message *message)
{
    const char *type, *text = NULL;
    uint8_t code;

    *offset = ALIGN_UP(*offset, 8);
    if (*offset >= length)
        return -EPROTO;
    code = bytes[(*offset)++];
    type = signature_at(bytes, length, offset);
    if (!type)
        return -EPROTO;
    if (!strcmp(type, "s") || !strcmp(type, "o")) {
        text = string_at(bytes, length, offset);
    } else if (!strcmp(type, "g")) {
        text = signature_at(bytes, length, offset);
    } else if (!strcmp(type, "u") && ALIGN_UP(*offset, 4) + 4 <= length) {
        *offset = ALIGN_UP(*offset, 4) + 4;
        if (code == FIELD_REPLY_SERIAL)
            message->reply_serial = load_le32(bytes + *offset - 4);
        return 0;
    }
    if (!text)
        return -EPROTO;
    if (code == FIELD_MEMBER)
        message->member = text;
    else if (code == FIELD_ERROR_NAME)
        message->error_name = text;
    else if (code == FIELD_SIGNATURE)
        message->signature = text;
    return 0;
}

/* How long the message that begins at bytes is; 0: more of it is needed; -EPROTO: none. */
static ssize_t message_length(const uint8_t *bytes, size_t length)
{
    uint64_t fields, body;

    if (length < HEADER_FIXED)
        return 0;
    fields = load_le32(bytes + 12);
    body = load_le32(bytes + 4);
    if (bytes[0] != 'l' || bytes[3] != 1 ||
        ALIGN_UP(HEADER_FIXED + fields, 8) + body > DBUS_MESSAGE_MAX)
        return -EPROTO;
    return (ssize_t)(ALIGN_UP(HEADER_FIXED + fields, 8) + body);
}

int dbus_parse(const uint8_t *bytes, size_t length, struct dbus_message *ret_message,
               struct error *err)
{
    struct dbus_message message = {.member = "", .error_name = "", .signature = ""};
    ssize_t whole = message_length(bytes, length);
    size_t offset = HEADER_FIXED, end;

    if (whole <= 0 || (size_t)whole > length)
        return error_set(err, EPROTO, "the message bus sends no message");
    end = HEADER_FIXED + load_le32(bytes + 12);
    message.type = bytes[1];
    while (offset < end)
        if (field_parse(bytes, end, &offset, &message) < 0)
            return error_set(err, EPROTO, "the message bus sends a damaged header");
    message.body_length = load_le32(bytes + 4);
    message.body = bytes + ALIGN_UP(end, 8);
    *ret_message = message;
    return 0;
}

const char *dbus_get_string(const struct dbus_message *message, size_t *offset)
{
    size_t at = *offset;
    const char *text;

    if (message->signature[0] == 'v' && at == 0 &&
        !signature_at(message->body, message->body_length, &at))
        return NULL;
    text = string_at(message->body, message->body_length, &at);
    if (text)
        *offset = at;
    return text;
}

bool dbus_get_u32(const struct dbus_message *message, size_t *offset, uint32_t *ret_value)
{
    size_t at = ALIGN_UP(*offset, 4);

    if (at + 4 > message->body_length)
        return false;
    *ret_value = load_le32(message->body + at);
    *offset = at + 4;
    return true;
}

/* --- The connection --- */

static int send_all(struct dbus *bus, const void *bytes, size_t length, struct error *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = send(bus->fd, (const char *)bytes + done, length - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_system(err, errno, "cannot write to the message bus");
        done += (size_t)n;
    }
    return 0;
}

static int receive(struct dbus *bus, struct error *err)
{
    struct pollfd wait = {.fd = bus->fd, .events = POLLIN};
    ssize_t n;

    memmove(bus->bytes, bus->bytes + bus->taken, bus->length - bus->taken);
    bus->length -= bus->taken;
    bus->taken = 0;
    do
        n = poll(&wait, 1, WAIT_MS);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return error_set(err, ETIMEDOUT, "the message bus does not answer");
    n = recv(bus->fd, bus->bytes + bus->length, DBUS_MESSAGE_MAX - bus->length, 0);
    if (n <= 0)
        return error_system(err, n < 0 ? errno : ECONNRESET, "cannot read from the message bus");
    bus->length += (size_t)n;
    return 0;
}

/* The next message; valid until the one after it is asked for. */
static int next_message(struct dbus *bus, struct dbus_message *ret_message, struct error *err)
{
    for (;;) {
        ssize_t whole = message_length(bus->bytes + bus->taken, bus->length - bus->taken);
        int r;

        if (whole < 0)
            return error_set(err, EPROTO, "the message bus sends no message");
        if (whole > 0 && (size_t)whole <= bus->length - bus->taken) {
            r = dbus_parse(bus->bytes + bus->taken, (size_t)whole, ret_message, err);
            bus->taken += (size_t)whole;
            return r;
        }
        if ((r = receive(bus, err)) < 0)
            return r;
    }
}

static void hand_signal(struct dbus *bus, const struct dbus_message *message)
{
    if (message->type == SIGNAL && bus->signalled)
        bus->signalled(bus->opaque, message);
}

/* Authentication Protocol: by the credentials that the kernel passes along. */
static int authenticate(struct dbus *bus, struct error *err)
{
    char uid[16], line[64] = "";
    size_t length = 0;
    int r;

    snprintf(uid, sizeof(uid), "%u", geteuid());
    strcpy(line + 1, "AUTH EXTERNAL ");
    length = 1 + strlen(line + 1);
    for (const char *digit = uid; *digit; digit++)
        length += (size_t)snprintf(line + length, sizeof(line) - length, "%02x", *digit);
    memcpy(line + length, "\r\n", 2);
    r = send_all(bus, line, length + 2, err);
    while (r == 0 && !memchr(bus->bytes, '\n', bus->length))
        r = receive(bus, err);
    if (r < 0)
        return r;
    if (bus->length < 3 || memcmp(bus->bytes, "OK ", 3) != 0)
        return error_set(err, EACCES, "the message bus does not let user %s in", uid);
    bus->length = 0;
    return send_all(bus, "BEGIN\r\n", 7, err);
}

/* The path of "unix:path=/run/dbus/system_bus_socket,guid=..."; NULL when it is another kind. */
static const char *address_path(const char *address, char *path, size_t size)
{
    static const char prefix[] = "unix:path=";

    if (strncmp(address, prefix, strlen(prefix)) != 0)
        return NULL;
    address += strlen(prefix);
    snprintf(path, size, "%.*s", (int)strcspn(address, ",;"), address);
    return path;
}

static int bus_path(bool user, char *path, size_t size, struct error *err)
{
    const char *address = getenv(user ? "DBUS_SESSION_BUS_ADDRESS" : "DBUS_SYSTEM_BUS_ADDRESS");
    const char *directory = getenv("XDG_RUNTIME_DIR");

    if (address && address_path(address, path, size))
        return 0;
    if (!user)
        snprintf(path, size, "/run/dbus/system_bus_socket");
    else if (directory)
        snprintf(path, size, "%s/bus", directory);
    else
        return error_set(err, ENOENT, "there is no bus of the user: XDG_RUNTIME_DIR is not set");
    return 0;
}

int dbus_connect(bool user, struct dbus **ret_bus, struct error *err)
{
    static const struct dbus_call hello = {"org.freedesktop.DBus", "/org/freedesktop/DBus",
                                           "org.freedesktop.DBus", "Hello", ""};
    struct dbus_message reply;
    char path[108]; /* sun_path, unix(7) */
    struct dbus *bus;
    int r = bus_path(user, path, sizeof(path), err);

    if (r < 0)
        return r;
    bus = calloc(1, sizeof(*bus));
    if (!bus || !(bus->bytes = malloc(DBUS_MESSAGE_MAX))) {
        free(bus);
        return error_set(err, ENOMEM, "out of memory");
    }
    r = bus->fd = socket_connect(path, err);
    if (r >= 0)
        r = authenticate(bus, err);
    if (r == 0)
        r = dbus_call(bus, &hello, NULL, &reply, err);
    if (r < 0)
        dbus_close(bus);
    else
        *ret_bus = bus;
    return r;
}

void dbus_close(struct dbus *bus)
{
    if (!bus)
        return;
    if (bus->fd >= 0)
        close(bus->fd);
    free(bus->bytes);
    free(bus);
}

void dbus_on_signal(struct dbus *bus,
                    void (*signalled)(void *opaque, const struct dbus_message *message),
                    void *opaque)
{
    bus->signalled = signalled;
    bus->opaque = opaque;
}

/* --- Calls --- */

static void put_field(struct dbus_body *header, uint8_t code, const char *type, const char *text)
{
    uint8_t *at;

    dbus_put_align(header, 8);
    at = put(header, 1, 1);
    if (at)
        *at = code;
    dbus_put_signature(header, type);
    if (type[0] == 'g')
        dbus_put_signature(header, text);
    else
        dbus_put_string(header, text);
}

static int call_send(struct dbus *bus, const struct dbus_call *call, const struct dbus_body *body,
                     struct error *err)
{
    struct dbus_body header = {.bytes = {'l', CALL, 0, 1}, .length = 4};
    struct dbus_array fields;
    int r;

    dbus_put_u32(&header, (uint32_t)(body ? body->length : 0));
    dbus_put_u32(&header, ++bus->serial);
    fields = dbus_begin_array(&header, 8);
    put_field(&header, FIELD_PATH, "o", call->path);
    put_field(&header, FIELD_INTERFACE, "s", call->interface);
    put_field(&header, FIELD_MEMBER, "s", call->member);
    put_field(&header, FIELD_DESTINATION, "s", call->destination);
    if (call->signature[0])
        put_field(&header, FIELD_SIGNATURE, "g", call->signature);
    dbus_end_array(&header, &fields);
    dbus_put_align(&header, 8);
    if (header.overflow || (body && body->overflow))
        return error_set(err, E2BIG, "%s: the arguments are too long", call->member);
    r = send_all(bus, header.bytes, header.length, err);
    return r < 0 || !body ? r : send_all(bus, body->bytes, body->length, err);
}

int dbus_call(struct dbus *bus, const struct dbus_call *call, const struct dbus_body *body,
              struct dbus_message *ret_reply, struct error *err)
{
    struct dbus_message message;
    int r = call_send(bus, call, body, err);
    size_t offset = 0;
    const char *text;

    for (;;) {
        if (r == 0)
            r = next_message(bus, &message, err);
        if (r < 0)
            return r;
        hand_signal(bus, &message);
        if (message.reply_serial == bus->serial && (message.type == REPLY || message.type == ERROR))
            break;
    }
    if (message.type == ERROR) {
        text = dbus_get_string(&message, &offset);
        return error_set(err, EREMOTEIO, "%s: %.200s", call->member,
                         text ? text : message.error_name);
    }
    *ret_reply = message;
    return 0;
}

int dbus_wait(struct dbus *bus, const bool *done, struct error *err)
{
    struct dbus_message message;

    while (!*done) {
        int r = next_message(bus, &message, err);
        if (r < 0)
            return r;
        hand_signal(bus, &message);
    }
    return 0;
}
