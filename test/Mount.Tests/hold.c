/* Holds something of a directory in the way that the first argument says, and writes a line when it does. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static const char *how, *directory;

static int is(const char *mode) { return strcmp(how, mode) == 0; }

static int checked(int result)
{
    if (result < 0) { perror(how); exit(1); }
    return result;
}

static void hold(void)
{
    puts("holds");
    fflush(stdout);
    pause();
}

static char *path(const char *name)
{
    char *result;
    checked(asprintf(&result, "%s/%s", directory, name));
    return result;
}

static int open_file(void) { return checked(open(path("f"), O_RDONLY)); }

static int bound(int type)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path("a socket"));
    int one = checked(socket(AF_UNIX, type, 0));
    checked(bind(one, (struct sockaddr *)&address, sizeof address));
    if (!is("connection")) { return one; }
    checked(listen(one, 1));
    int client = checked(socket(AF_UNIX, type, 0));
    checked(connect(client, (struct sockaddr *)&address, sizeof address));
    int accepted = checked(accept(one, NULL, NULL));
    close(one); /* the connection has the name of its listener, and holds it */
    return accepted;
}

static int *pair(void)
{
    static int ends[2];
    checked(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    return ends;
}

/* Nobody receives it. */
static void send_to(int one, int descriptor)
{
    char control[CMSG_SPACE(sizeof descriptor)] = "";
    struct iovec byte = { .iov_base = "x", .iov_len = 1 };
    struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    checked(sendmsg(one, &message, 0));
    close(descriptor);
}

static void *thread(void *nothing)
{
    if (is("thread-files")) { checked(unshare(CLONE_FILES)); open_file(); }
    if (is("thread-cwd")) { checked(unshare(CLONE_FS)); checked(chdir(directory)); }
    if (is("thread-root")) { checked(unshare(CLONE_FS)); checked(chroot(directory)); }
    if (is("leader-ended"))
    {
        open_file();
        char state[256] = "";
        while (!strstr(state, "State:\tZ")) /* the first thread */
        {
            FILE *status = fopen("/proc/self/status", "r");
            while (fgets(state, sizeof state, status) && strncmp(state, "State:", 6)) { }
            fclose(status);
        }
    }
    hold();
    return nothing;
}

int main(int count, char **words)
{
    if (count != 3) { return 2; }
    how = words[1];
    directory = words[2];
    if (strncmp(how, "thread", 6) == 0 || is("leader-ended"))
    {
        pthread_t one;
        checked(-pthread_create(&one, NULL, thread, NULL));
        if (is("leader-ended")) { syscall(SYS_exit, 0); }
        pause();
    }
    if (is("socket") || is("connection")) { bound(SOCK_STREAM); }
    if (is("datagrams")) { bound(SOCK_DGRAM); }
    if (is("socket-removed")) { bound(SOCK_STREAM); checked(unlink(path("a socket"))); }
    if (is("socket-elsewhere")) { checked(unshare(CLONE_NEWNET)); bound(SOCK_STREAM); }
    if (is("registered"))
    {
        char parameters[120] = "";
        int ring = checked(syscall(SYS_io_uring_setup, 4, parameters));
        int file = open_file();
        checked(syscall(SYS_io_uring_register, ring, 2 /* IORING_REGISTER_FILES */, &file, 1));
        close(file);
    }
    if (is("in-flight")) { send_to(pair()[1], open_file()); }
    if (is("events"))
    {
        int group = checked(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
        checked(fanotify_mark(group, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, path("f")));
        close(open_file()); /* nobody reads of it */
        checked(fanotify_mark(group, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL));
    }
    if (is("open")) { open_file(); }
    if (is("path")) { checked(open(path("f"), O_PATH)); }
    if (is("map"))
    {
        int file = open_file();
        if (mmap(NULL, 4, PROT_READ, MAP_SHARED, file, 0) == MAP_FAILED) { checked(-1); }
        close(file);
    }
    hold();
    return 0;
}
