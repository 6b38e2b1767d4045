#include "network/dns.h"

#include <string.h>

#include "base/bytes.h"

#define HEADER_SIZE 12u
#define LABEL_MAX   63
#define CLASS_IN    1
#define TTL         5 /* seconds: guests come and go */

/* The header (RFC 1035, 4.1.1). */
enum { HEADER_ID = 0, HEADER_FLAGS = 2, HEADER_QUESTIONS = 4, HEADER_ANSWERS = 6 };
enum {
    FLAG_RESPONSE = 0x8000, FLAGS_OPCODE = 0x7800, FLAG_AUTHORITY = 0x0400,
    FLAG_RECURSION = 0x0100, FLAG_RECURSES = 0x0080,
};

bool dns_parse(const uint8_t *query, size_t size, struct dns_question *ret_question)
{
    struct dns_question question;
    size_t at = HEADER_SIZE, used = 0;

    if (size < HEADER_SIZE || load_be16(query + HEADER_QUESTIONS) != 1 ||
        (load_be16(query + HEADER_FLAGS) & (FLAG_RESPONSE | FLAGS_OPCODE)))
        return false;
    while (at < size && query[at]) {
        size_t label = query[at++];

        /* A longer one would be a pointer (4.1.4): there is nothing yet to point at. */
        if (label > LABEL_MAX || label > size - at || used + label + 1 > DNS_NAME_MAX)
            return false;
        if (used)
            question.name[used++] = '.';
        for (; label; label--, at++) {
            if (query[at] <= ' ' || query[at] >= 127 || query[at] == '.')
                return false;
            question.name[used++] =
                (char)(query[at] >= 'A' && query[at] <= 'Z' ? query[at] + 32 : query[at]);
        }
    }
    if (size - at < 5 || load_be16(query + at + 3) != CLASS_IN)
        return false;
    question.name[used] = 0;
    question.type = load_be16(query + at + 1);
    question.end = at + 5;
    *ret_question = question;
    return true;
}

size_t dns_answer(const uint8_t *query, const struct dns_question *question, enum dns_code code,
                  const struct in_addr *address, uint8_t reply[DNS_REPLY_MAX])
{
    const uint16_t flags = load_be16(query + HEADER_FLAGS) & FLAG_RECURSION;
    uint8_t *at = reply + question->end;

    memset(reply, 0, HEADER_SIZE);
    memcpy(reply, query, 2);
    store_be16(reply + HEADER_FLAGS,
               (uint16_t)(FLAG_RESPONSE | FLAG_AUTHORITY | FLAG_RECURSES | flags | code));
    store_be16(reply + HEADER_QUESTIONS, 1);
    memcpy(reply + HEADER_SIZE, query + HEADER_SIZE, question->end - HEADER_SIZE);
    if (!address)
        return question->end;
    store_be16(reply + HEADER_ANSWERS, 1);
    store_be16(at, 0xc000 | HEADER_SIZE); /* the name: a pointer to the question's */
    store_be16(at + 2, DNS_TYPE_A);
    store_be16(at + 4, CLASS_IN);
    store_be32(at + 6, TTL);
    store_be16(at + 10, sizeof(*address));
    memcpy(at + 12, address, sizeof(*address));
    return question->end + 12 + sizeof(*address);
}
