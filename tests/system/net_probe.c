/* For guests in tests of networks, whose busybox speaks no UDP:
 *
 *     net_probe serve PORT              answers datagrams with "FROM said TEXT", IPv4 and IPv6
 *     net_probe ask HOST PORT TEXT      sends until there is an answer, and prints it
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int serve(const char *port)
{
    struct sockaddr_in6 from, where = {.sin6_family = AF_INET6,
                                       .sin6_port = htons((unsigned short)atoi(port))};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    char text[512], reply[1024], address[INET6_ADDRSTRLEN];

    if (bind(fd, (struct sockaddr *)&where, sizeof(where)) < 0)
        return 1;
    for (;;) {
        socklen_t size = sizeof(from);
        ssize_t n = recvfrom(fd, text, sizeof(text) - 1, 0, (struct sockaddr *)&from, &size);

        if (n < 0)
            return 1;
        text[n] = 0;
        inet_ntop(AF_INET6, &from.sin6_addr, address, sizeof(address));
        n = snprintf(reply, sizeof(reply), "%s said %s", address, text);
        sendto(fd, reply, (size_t)n, 0, (struct sockaddr *)&from, size);
    }
}

static int ask(const char *host, const char *port, const char *text)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *where;
    struct pollfd wait = {.events = POLLIN};
    char reply[1024];

    if (getaddrinfo(host, port, &hints, &where) != 0)
        return 1;
    wait.fd = socket(where->ai_family, SOCK_DGRAM, 0);
    for (int i = 0; i < 60; i++) {
        ssize_t n;

        sendto(wait.fd, text, strlen(text), 0, where->ai_addr, where->ai_addrlen);
        if (poll(&wait, 1, 500) < 1)
            continue;
        n = recv(wait.fd, reply, sizeof(reply), 0);
        if (n > 0) {
            printf("%.*s\n", (int)n, reply);
            return 0;
        }
        usleep(500000); /* nobody is there yet */
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    return argc == 5 && strcmp(argv[1], "ask") == 0 ? ask(argv[2], argv[3], argv[4]) : 2;
}
