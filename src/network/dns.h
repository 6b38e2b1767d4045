/* dns.h - just enough of the domain name system (RFC 1035) to answer for the
 * names of guests: one question in, at most one address out. */
#ifndef LODGE_NETWORK_DNS_H
#define LODGE_NETWORK_DNS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_NAME_MAX  253
#define DNS_REPLY_MAX 512 /* 4.2.1 */

enum { DNS_TYPE_A = 1 };
enum dns_code { DNS_NO_ERROR = 0, DNS_NO_NAME = 3 };

struct dns_question {
    char name[DNS_NAME_MAX + 1]; /* lower case, no dot at its end */
    uint16_t type;
    size_t end; /* of the question within the query */
};

/* Is the message a query with one question, for a name of printable characters? */
bool dns_parse(const uint8_t *query, size_t size, struct dns_question *ret_question);

/* The answer to a parsed query: its size. address NULL: the name has none of that type. */
size_t dns_answer(const uint8_t *query, const struct dns_question *question, enum dns_code code,
                  const struct in_addr *address, uint8_t reply[DNS_REPLY_MAX]);

#endif
