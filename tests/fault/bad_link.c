/* A bad network between two namespaces: two TUN devices whose packets all pass through this process.
 *
 *   bad_link SEED NETNS-A NETNS-B        (paths, as /run/netns/a); each gets the device `ken0`, point-to-point
 *
 * Commands are lines on stdin, each answered by one line; the link ends with stdin:
 *
 *   loss P, double P, swap P   so many of 100 packets are dropped; come twice; come later than those behind them
 *   delay MIN MAX              each takes so many milliseconds; those that are not swapped keep their order
 *   cut, heal                  nothing passes, in neither direction; what is on its way is lost
 *   counts                     what happened so far
 *
 * The n-th packet in a direction meets the same fate in each run with the same seed and settings (which packet is the
 * n-th is up to the programs).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MOST 2048
#define QUEUE_MOST 4096 /* packets on their way in one direction; beyond them they are lost, as in a router */

struct packet {
    struct packet *next;
    int64_t due; /* ns */
    size_t length;
    unsigned char bytes[PACKET_MOST];
};

struct direction {
    int to;
    uint64_t random;
    int64_t last; /* when the latest of those in order is due */
    unsigned queued;
    struct packet *queue; /* by time */
};

static struct settings {
    unsigned loss, twice, swap; /* of 100 */
    int64_t least, most;        /* ns */
    bool cut;
} settings;

static struct {
    unsigned long seen, passed, lost, twice, swapped, cut;
} counts;

static void die(const char *what)
{
    fprintf(stderr, "bad_link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* splitmix64 */
static uint64_t draw(struct direction *d)
{
    uint64_t z = d->random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static int open_tun(const char *netns)
{
    struct ifreq r = {.ifr_name = "ken0", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int ns = open(netns, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWNET))
        die(netns);
    close(ns);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        die("/dev/net/tun");
    if (ioctl(fd, TUNSETIFF, &r))
        die("TUNSETIFF");
    return fd;
}

static void enqueue(struct direction *d, const void *bytes, size_t length, int64_t due)
{
    struct packet *p = d->queued < QUEUE_MOST ? malloc(sizeof *p) : NULL;
    if (!p) {
        counts.lost++;
        return;
    }
    p->due = due;
    p->length = length;
    memcpy(p->bytes, bytes, length);
    struct packet **at = &d->queue;
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    p->next = *at;
    *at = p;
    d->queued++;
}

/* Draws as often for each packet, whatever happens to it: so the n-th packet's fate depends on n alone. */
static void take(struct direction *d, const void *bytes, size_t length)
{
    bool lost = draw(d) % 100 < settings.loss, twice = draw(d) % 100 < settings.twice, swapped = draw(d) % 100 < settings.swap;
    int64_t range = settings.most - settings.least, delay = settings.least + (int64_t)(draw(d) % (uint64_t)(range + 1));
    int64_t due = now() + delay;
    counts.seen++;
    if (settings.cut || lost) {
        *(settings.cut ? &counts.cut : &counts.lost) += 1;
        return;
    }
    if (swapped) {
        counts.swapped++;
        due += settings.most + 2000000;
    } else {
        due = d->last = due > d->last ? due : d->last;
    }
    enqueue(d, bytes, length, due);
    if (twice) {
        counts.twice++;
        enqueue(d, bytes, length, due + delay);
    }
}

/* Returns when the next packet is due, or -1. A device that is down takes nothing: the packet is lost. */
static int64_t deliver(struct direction *d)
{
    while (d->queue && (settings.cut || d->queue->due <= now())) {
        struct packet *p = d->queue;
        d->queue = p->next;
        d->queued--;
        if (settings.cut)
            counts.cut++;
        else if (write(d->to, p->bytes, p->length) == (ssize_t)p->length)
            counts.passed++;
        else
            counts.lost++;
        free(p);
    }
    return d->queue ? d->queue->due : -1;
}

static void obey(const char *line)
{
    unsigned a = 0, b = 0;
    const char *answer = "ok";
    if (sscanf(line, "loss %u", &a) == 1)
        settings.loss = a;
    else if (sscanf(line, "double %u", &a) == 1)
        settings.twice = a;
    else if (sscanf(line, "swap %u", &a) == 1)
        settings.swap = a;
    else if (sscanf(line, "delay %u %u", &a, &b) == 2 && b >= a)
        settings.least = a * 1000000LL, settings.most = b * 1000000LL;
    else if (!strcmp(line, "cut") || !strcmp(line, "heal"))
        settings.cut = *line == 'c';
    else if (strcmp(line, "counts") != 0)
        answer = "what?";
    if (!strcmp(line, "counts"))
        printf("%lu seen, %lu passed, %lu lost, %lu doubled, %lu swapped, %lu cut off\n", counts.seen, counts.passed,
               counts.lost, counts.twice, counts.swapped, counts.cut);
    else
        puts(answer);
    fflush(stdout);
}

/* False: there will be no more commands. */
static bool hear(void)
{
    static char text[256];
    static size_t used;
    ssize_t n = read(0, text + used, sizeof text - 1 - used);
    if (n <= 0)
        return false;
    used += (size_t)n;
    text[used] = '\0';
    for (char *end; (end = strchr(text, '\n'));) {
        *end = '\0';
        obey(text);
        used -= (size_t)(end + 1 - text);
        memmove(text, end + 1, used + 1);
    }
    return used < sizeof text - 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: bad_link SEED NETNS-A NETNS-B\n");
        return 2;
    }
    int tun[2] = {open_tun(argv[2]), open_tun(argv[3])};
    struct direction way[2] = {{.to = tun[1], .random = strtoull(argv[1], NULL, 0) * 2},
                               {.to = tun[0], .random = strtoull(argv[1], NULL, 0) * 2 + 1}};
    puts("ready");
    fflush(stdout);
    for (;;) {
        int64_t next = -1;
        for (int i = 0; i < 2; i++) {
            int64_t due = deliver(&way[i]);
            next = due >= 0 && (next < 0 || due < next) ? due : next;
        }
        int64_t left = next - now();
        struct timespec wait = {.tv_sec = left > 0 ? left / 1000000000 : 0, .tv_nsec = left > 0 ? left % 1000000000 : 0};
        struct pollfd p[] = {{tun[0], POLLIN, 0}, {tun[1], POLLIN, 0}, {0, POLLIN, 0}};
        if (ppoll(p, 3, next < 0 ? NULL : &wait, NULL) < 0 && errno != EINTR)
            die("poll");
        for (int i = 0; i < 2; i++) {
            unsigned char bytes[PACKET_MOST];
            ssize_t n;
            while (p[i].revents && (n = read(tun[i], bytes, sizeof bytes)) > 0)
                take(&way[i], bytes, (size_t)n);
        }
        if (p[2].revents && !hear())
            return 0;
    }
}
