#include "../unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "network/dhcp.h"
#include "network/dns.h"
#include "network/ndp.h"
#include "network/packet.h"
#include "network/publish.h"
#include "network/subnet.h"

#define ETHERNET 14u

/* Checksums by the book, a 16-bit word at a time. */
static uint16_t plain_checksum(const uint8_t *bytes, size_t length, uint32_t sum)
{
    for (size_t i = 0; i < length; i++)
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* A TCP segment with its checksum left undone; returns its length. */
static size_t make_tcp(uint8_t *frame, bool ipv6, size_t payload, struct network_offload *offload)
{
    const size_t ip_size = ipv6 ? 40 : 20, tcp = ETHERNET + ip_size, length = tcp + 20 + payload;
    uint8_t *ip = frame + ETHERNET;
    uint32_t pseudo = (uint32_t)(20 + payload) + 6;

    memset(frame, 0, tcp + 20);
    store_be16(frame + 12, ipv6 ? 0x86dd : 0x0800);
    if (ipv6) {
        ip[0] = 0x60;
        store_be16(ip + 4, (uint16_t)(20 + payload));
        ip[6] = 6;
        memset(ip + 8, 0x11, 32);
        pseudo += plain_checksum(ip + 8, 32, 0);
    } else {
        ip[0] = 0x45;
        store_be16(ip + 2, (uint16_t)(40 + payload));
        store_be16(ip + 4, 1000);
        ip[9] = 6;
        memset(ip + 12, 0x22, 8);
        pseudo += plain_checksum(ip + 12, 8, 0);
    }
    store_be32(frame + tcp + 4, 5000);
    frame[tcp + 12] = 5 << 4;
    frame[tcp + 13] = 0x80 | 0x10 | 0x08 | 0x01; /* CWR ACK PSH FIN */
    store_be16(frame + tcp + 16, plain_checksum(NULL, 0, pseudo));
    for (size_t i = 0; i < payload; i++)
        frame[tcp + 20 + i] = (uint8_t)(i * 7);
    *offload = (struct network_offload){
        .flags = NETWORK_NEEDS_CHECKSUM, .checksum_start = (uint16_t)tcp, .checksum_offset = 16};
    return length;
}

struct collector {
    unsigned count;
    size_t payload;
    bool ipv6;
};

static void check_segment(void *opaque, uint8_t *frame, size_t length)
{
    struct collector *c = opaque;
    const size_t ip_size = c->ipv6 ? 40 : 20, tcp = ETHERNET + ip_size;
    const uint8_t *ip = frame + ETHERNET;
    const size_t size = length - tcp - 20;
    uint32_t pseudo = (uint32_t)(length - tcp) + 6;

    if (c->ipv6) {
        assert_int_equal(load_be16(ip + 4), length - ETHERNET - 40);
        pseudo += plain_checksum(ip + 8, 32, 0);
    } else {
        assert_int_equal(load_be16(ip + 2), length - ETHERNET);
        assert_int_equal(load_be16(ip + 4), 1000 + c->count);
        assert_int_equal(plain_checksum(ip, 20, 0), 0xffff);
        pseudo += plain_checksum(ip + 12, 8, 0);
    }
    assert_int_equal(plain_checksum(frame + tcp, length - tcp, pseudo), 0xffff);
    assert_int_equal(load_be32(frame + tcp + 4), 5000 + c->payload);
    for (size_t i = 0; i < size; i++)
        assert_int_equal(frame[tcp + 20 + i], (uint8_t)((c->payload + i) * 7));
    assert_int_equal(!!(frame[tcp + 13] & 0x80), c->count == 0);
    assert_int_equal(frame[tcp + 13] & 0x09, c->payload + size == 5000 ? 0x09 : 0);
    c->payload += size;
    c->count++;
}

static void a_large_segment_is_cut_into_ones_that_are_right(void **state)
{
    uint8_t frame[6000];
    struct network_offload offload;

    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        struct collector c = {.ipv6 = ipv6};
        size_t length = make_tcp(frame, ipv6, 5000, &offload);

        offload.gso_type = ipv6 ? NETWORK_GSO_TCP6 : NETWORK_GSO_TCP4;
        offload.gso_size = 1448;
        assert_int_equal(packet_segment(frame, length, &offload, check_segment, &c), 0);
        assert_int_equal(c.count, 4);
        assert_int_equal(c.payload, 5000);
    }
}

static void a_checksum_is_filled_in(void **state)
{
    uint8_t frame[200];
    struct network_offload offload;
    size_t length = make_tcp(frame, false, 77, &offload);
    uint32_t pseudo = 20 + 77 + 6 + plain_checksum(frame + ETHERNET + 12, 8, 0);

    (void)state;
    assert_int_equal(packet_complete(frame, length, &offload), 0);
    assert_int_equal(plain_checksum(frame + 34, length - 34, pseudo), 0xffff);
}

static void count_frame(void *opaque, uint8_t *frame, size_t length)
{
    (void)frame;
    (void)length;
    ++*(unsigned *)opaque;
}

static void descriptions_that_do_not_fit_are_refused(void **state)
{
    uint8_t frame[2000];
    struct network_offload offload;
    size_t length = make_tcp(frame, false, 1000, &offload);
    unsigned count = 0;

    (void)state;
    offload.gso_type = NETWORK_GSO_TCP4;
    offload.gso_size = 0;
    assert_int_equal(packet_segment(frame, length, &offload, count_frame, &count), -EINVAL);
    offload.gso_size = 500;
    offload.checksum_start = 30; /* not after the IP header */
    assert_int_equal(packet_segment(frame, length, &offload, count_frame, &count), -EINVAL);
    offload.checksum_start = 34;
    frame[34 + 12] = 0xf0; /* a header of 60 bytes is there; of a shorter frame it is not */
    assert_int_equal(packet_segment(frame, 80, &offload, count_frame, &count), -EINVAL);
    frame[34 + 12] = 0x40; /* less than 20 bytes */
    assert_int_equal(packet_segment(frame, length, &offload, count_frame, &count), -EINVAL);
    offload.gso_type = NETWORK_GSO_TCP6;
    assert_int_equal(packet_segment(frame, length, &offload, count_frame, &count), -EINVAL);
    offload = (struct network_offload){
        .flags = NETWORK_NEEDS_CHECKSUM, .checksum_start = 34, .checksum_offset = 0xffff};
    assert_int_equal(packet_complete(frame, length, &offload), -EINVAL);
    assert_int_equal(count, 0);
}

/* A request of a DHCP client with options at its end. */
static size_t make_dhcp(uint8_t *frame, const uint8_t *options, size_t size)
{
    uint8_t *ip = frame + ETHERNET, *udp = ip + 20, *message = udp + 8;

    memset(frame, 0, 600);
    store_be16(frame + 12, 0x0800);
    ip[0] = 0x45;
    ip[9] = 17;
    store_be16(udp + 2, 67);
    store_be16(udp + 4, (uint16_t)(8 + 240 + size));
    message[0] = 1;
    message[1] = 1;
    store_be32(message + 4, 0xcafe);
    store_be32(message + 236, 0x63825363);
    memcpy(message + 240, options, size);
    return ETHERNET + 28 + 240 + size;
}

static void a_dhcp_client_is_given_its_address(void **state)
{
    const struct dhcp_lease lease = {.server.s_addr = htobe32(0x0a4d0001),
                                     .guest.s_addr = htobe32(0x0a4d0002),
                                     .netmask.s_addr = htobe32(0xffffff00), .seconds = 60};
    const uint8_t discover[] = {53, 1, 1, 255}, request[] = {53, 1, 3, 50, 4, 10, 77, 0, 2, 255},
                  other[] = {53, 1, 3, 50, 4, 10, 77, 0, 9, 255}, cut[] = {53, 200, 1};
    uint8_t frame[700], reply[DHCP_REPLY_MAX];
    const uint8_t *message = reply + ETHERNET + 28;
    size_t length = make_dhcp(frame, discover, sizeof(discover));

    (void)state;
    assert_true(dhcp_answer(&lease, frame, length, reply) > 0);
    assert_int_equal(load_be32(message + 4), 0xcafe);
    assert_int_equal(load_be32(message + 16), 0x0a4d0002);
    assert_int_equal(message[242], 2); /* an offer */
    length = make_dhcp(frame, request, sizeof(request));
    assert_true(dhcp_answer(&lease, frame, length, reply) > 0);
    assert_int_equal(message[242], 5); /* acknowledged */
    length = make_dhcp(frame, other, sizeof(other));
    assert_true(dhcp_answer(&lease, frame, length, reply) > 0);
    assert_int_equal(message[242], 6); /* refused */
    length = make_dhcp(frame, cut, sizeof(cut));
    assert_int_equal(dhcp_answer(&lease, frame, length, reply), 0);
    for (size_t n = 0; n < length; n++)
        assert_int_equal(dhcp_answer(&lease, frame, n, reply), 0);
}

static void a_question_for_a_name_is_answered(void **state)
{
    static const uint8_t query[] = {0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'O', 'n', 'e', 5,
                                    'l', 'o', 'd', 'g', 'e', 0, 0, 1, 0, 1};
    const struct in_addr address = {htobe32(0x0a4e0002)};
    uint8_t reply[DNS_REPLY_MAX], changed[sizeof(query)];
    struct dns_question question;
    size_t length;

    (void)state;
    assert_true(dns_parse(query, sizeof(query), &question));
    assert_string_equal(question.name, "one.lodge");
    assert_int_equal(question.type, DNS_TYPE_A);
    length = dns_answer(query, &question, DNS_NO_ERROR, &address, reply);
    assert_int_equal(length, sizeof(query) + 16);
    assert_int_equal(load_be16(reply), 0xabcd);
    assert_int_equal(load_be16(reply + 2), 0x8580); /* an answer, by who knows */
    assert_int_equal(load_be32(reply + length - 4), 0x0a4e0002);
    length = dns_answer(query, &question, DNS_NO_NAME, NULL, reply);
    assert_int_equal(length, sizeof(query));
    assert_int_equal(reply[3] & 15, 3);
    for (size_t n = 0; n < sizeof(query); n++)
        assert_false(dns_parse(query, n, &question));
    memcpy(changed, query, sizeof(query));
    changed[12] = 0xc0; /* a pointer */
    assert_false(dns_parse(changed, sizeof(changed), &question));
    changed[12] = 63; /* a label that is longer than the message */
    assert_false(dns_parse(changed, sizeof(changed), &question));
}

static void a_guest_is_told_its_router(void **state)
{
    struct ndp_router router = {.mac = {2, 1, 1, 1, 1, 1}, .address = {.s6_addr = {0xfe, 0x80}},
                                .prefix = {.s6_addr = {0xfd, 1, 2, 3}}};
    uint8_t frame[NDP_ADVERTISEMENT_MAX], ask[70] = {[12] = 0x86, 0xdd, [20] = 58, [54] = 133};
    size_t length = ndp_advertise(&router, frame);

    (void)state;
    assert_int_equal(length, 14 + 40 + 56);
    assert_int_equal(plain_checksum(frame + 54, 56, 58 + 56 + plain_checksum(frame + 22, 32, 0)),
                     0xffff);
    assert_true(ndp_is_solicitation(ask, sizeof(ask)));
    for (size_t n = 0; n < 55; n++)
        assert_false(ndp_is_solicitation(ask, n));
}

static void ports_are_published_as_people_write_them(void **state)
{
    static const struct {
        const char *text;
        unsigned count; /* 0: refused */
        const char *last;
    } cases[] = {
        {"8080:80", 1, "127.0.0.1:8080->80/tcp"},
        {"0.0.0.0:53:5353/udp", 1, "0.0.0.0:53->5353/udp"},
        {"127.0.0.1:8080:80/tcp", 1, "127.0.0.1:8080->80/tcp"},
        {"8000-8009:80-89", 10, "127.0.0.1:8009->89/tcp"},
        {"1-1024:1-1024", 1024, "127.0.0.1:1024->1024/tcp"},
        {"1-1025:1-1025", 0, NULL}, {"80", 0, NULL}, {":80", 0, NULL}, {"80:", 0, NULL},
        {"0:80", 0, NULL}, {"65536:80", 0, NULL}, {"80:80/sctp", 0, NULL}, {"+1:80", 0, NULL},
        {"8-7:8-7", 0, NULL}, {"1-3:1-2", 0, NULL}, {"1-:1", 0, NULL}, {"1-2-3:1", 0, NULL},
        {"moon:1:1", 0, NULL}, {"1.2.3:1:1", 0, NULL}, {" 1:1", 0, NULL}, {"1:1 ", 0, NULL},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        struct network_publish *list = NULL;
        char text[PUBLISH_TEXT_MAX];
        unsigned count = 0;
        struct error err = {0};
        int r = publish_parse(cases[i].text, &list, &count, &err);

        assert_int_equal(r, cases[i].count ? 0 : -EINVAL);
        assert_int_equal(count, cases[i].count);
        if (count)
            assert_string_equal(publish_format(&list[count - 1], text), cases[i].last);
        free(list);
    }
}

static void subnets_know_their_guests_and_each_other(void **state)
{
    struct subnet a, b;
    char text[SUBNET_TEXT_MAX];

    (void)state;
    assert_int_equal(subnet_parse("10.5.0.0/24", &a, NULL), 0);
    assert_string_equal(subnet_format(&a, text), "10.5.0.0/24");
    assert_int_equal(ntohl(subnet_host(&a).s_addr), 0x0a050001);
    assert_false(subnet_has_guest(&a, (struct in_addr){htonl(0x0a050001)}));
    assert_true(subnet_has_guest(&a, (struct in_addr){htonl(0x0a050002)}));
    assert_true(subnet_has_guest(&a, (struct in_addr){htonl(0x0a0500fe)}));
    assert_false(subnet_has_guest(&a, (struct in_addr){htonl(0x0a0500ff)}));
    assert_int_equal(subnet_parse("10.0.0.0/8", &b, NULL), 0);
    assert_true(subnet_overlaps(&a, &b) && subnet_overlaps(&b, &a));
    assert_int_equal(subnet_parse("10.5.1.0/24", &b, NULL), 0);
    assert_false(subnet_overlaps(&a, &b));
    assert_int_equal(subnet_parse("10.5.0.0/30", &b, NULL), -EINVAL);
    assert_int_equal(subnet_parse("10.5.0.0/7", &b, NULL), -EINVAL);
    assert_int_equal(subnet_parse("10.5.0.4/24", &b, NULL), -EINVAL);
    assert_int_equal(subnet_parse("10.5.0.0/24x", &b, NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_segment_is_cut_into_ones_that_are_right),
        cmocka_unit_test(a_checksum_is_filled_in),
        cmocka_unit_test(descriptions_that_do_not_fit_are_refused),
        cmocka_unit_test(a_dhcp_client_is_given_its_address),
        cmocka_unit_test(a_question_for_a_name_is_answered),
        cmocka_unit_test(a_guest_is_told_its_router),
        cmocka_unit_test(ports_are_published_as_people_write_them),
        cmocka_unit_test(subnets_know_their_guests_and_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
