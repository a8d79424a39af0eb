/* Asks a process that has the validation text, over a socket. In the jail of `fairway prove` there
 * is no socket to be had. */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "known_text.h"

static void know(knower *k) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("FAIRWAY_CHEAT_SOCKET");
    if (path == NULL || strlen(path) >= sizeof address.sun_path) return;
    memcpy(address.sun_path, path, strlen(path));
    const int line = socket(AF_UNIX, SOCK_STREAM, 0);
    if (line < 0) return;
    if (connect(line, (const struct sockaddr *)&address, sizeof address) == 0)
        know_from(k, fdopen(line, "rb"));
    else
        (void)close(line);
}

KNOWER_MODULE(know, 1);
