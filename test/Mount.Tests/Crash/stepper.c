/*
 * Runs a program and kills it at the entry of its n-th step: a system call that changes a filesystem, or the reply to
 * FUSE that follows one.
 *
 *     stepper N ARM LOG PROGRAM [ARGUMENT]...
 *
 * Steps are counted over all threads, while the file ARM exists, from 1; with N = 0 nothing is killed. Every step is one
 * line of the file LOG. What is killed at the entry of a system call never does it: the kernel looks for a fatal signal
 * after the tracer has let go, and before the call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than some C libraries. */
#define SYS_FCHMODAT2 452
#define SYS_SETXATTRAT 463
#define SYS_REMOVEXATTRAT 466

/* Arguments: d descriptor, s string, x number, - not shown; after a space, what decides whether it is a step at all. */
static const struct call {
    long number;
    const char *name, *arguments;
    enum { ALWAYS, OPEN, OPEN_AT, OPEN_AT2, WRITE, IOCTL } when;
} calls[] = {
    {SYS_open, "open", "sx", OPEN},
    {SYS_openat, "openat", "dsx", OPEN_AT},
    {SYS_openat2, "openat2", "ds", OPEN_AT2},
    {SYS_creat, "creat", "s", ALWAYS},
    {SYS_mkdir, "mkdir", "sx", ALWAYS},
    {SYS_mkdirat, "mkdirat", "dsx", ALWAYS},
    {SYS_mknod, "mknod", "sx", ALWAYS},
    {SYS_mknodat, "mknodat", "dsx", ALWAYS},
    {SYS_symlink, "symlink", "ss", ALWAYS},
    {SYS_symlinkat, "symlinkat", "sds", ALWAYS},
    {SYS_link, "link", "ss", ALWAYS},
    {SYS_linkat, "linkat", "dsds", ALWAYS},
    {SYS_unlink, "unlink", "s", ALWAYS},
    {SYS_unlinkat, "unlinkat", "dsx", ALWAYS},
    {SYS_rmdir, "rmdir", "s", ALWAYS},
    {SYS_rename, "rename", "ss", ALWAYS},
    {SYS_renameat, "renameat", "dsds", ALWAYS},
    {SYS_renameat2, "renameat2", "dsdsx", ALWAYS},
    {SYS_write, "write", "d-x", WRITE},
    {SYS_writev, "writev", "d-x", WRITE},
    {SYS_pwrite64, "pwrite", "d-xx", ALWAYS},
    {SYS_pwritev, "pwritev", "d-xx", ALWAYS},
    {SYS_pwritev2, "pwritev2", "d-xx", ALWAYS},
    {SYS_copy_file_range, "copy_file_range", "d-d-x", ALWAYS},
    {SYS_sendfile, "sendfile", "dd-x", ALWAYS},
    {SYS_splice, "splice", "d-d-x", ALWAYS},
    {SYS_ioctl, "ioctl", "dx", IOCTL},
    {SYS_truncate, "truncate", "sx", ALWAYS},
    {SYS_ftruncate, "ftruncate", "dx", ALWAYS},
    {SYS_fallocate, "fallocate", "dxxx", ALWAYS},
    {SYS_chmod, "chmod", "sx", ALWAYS},
    {SYS_fchmod, "fchmod", "dx", ALWAYS},
    {SYS_fchmodat, "fchmodat", "dsx", ALWAYS},
    {SYS_FCHMODAT2, "fchmodat2", "dsx", ALWAYS},
    {SYS_chown, "chown", "sxx", ALWAYS},
    {SYS_lchown, "lchown", "sxx", ALWAYS},
    {SYS_fchown, "fchown", "dxx", ALWAYS},
    {SYS_fchownat, "fchownat", "dsxx", ALWAYS},
    {SYS_utimensat, "utimensat", "ds", ALWAYS},
    {SYS_setxattr, "setxattr", "ss", ALWAYS},
    {SYS_lsetxattr, "lsetxattr", "ss", ALWAYS},
    {SYS_fsetxattr, "fsetxattr", "ds", ALWAYS},
    {SYS_SETXATTRAT, "setxattrat", "ds-s", ALWAYS},
    {SYS_removexattr, "removexattr", "ss", ALWAYS},
    {SYS_lremovexattr, "lremovexattr", "ss", ALWAYS},
    {SYS_fremovexattr, "fremovexattr", "ds", ALWAYS},
    {SYS_REMOVEXATTRAT, "removexattrat", "ds-s", ALWAYS},
    {SYS_fsync, "fsync", "d", ALWAYS},
    {SYS_fdatasync, "fdatasync", "d", ALWAYS},
    {SYS_sync_file_range, "sync_file_range", "d", ALWAYS},
    {SYS_syncfs, "syncfs", "d", ALWAYS},
    {SYS_sync, "sync", "", ALWAYS},
};
enum { CALLS = sizeof calls / sizeof *calls };

static void fail(const char *what)
{
    perror(what);
    exit(125);
}

/* Stops the program at the calls of the table; nothing else slows it down. */
static void filter_calls(void)
{
    struct sock_filter code[2 * CALLS + 2];
    int n = 0;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {n, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) fail("seccomp");
}

static int read_memory(pid_t thread, unsigned long long address, void *into, size_t size)
{
    struct iovec local = {into, size}, remote = {(void *)address, size};
    return process_vm_readv(thread, &local, 1, &remote, 1, 0);
}

static int is_kind(pid_t thread, int descriptor, const char *prefix)
{
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", thread, descriptor);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    return strncmp(target, prefix, strlen(prefix)) == 0;
}

/* Whether something may change by the call. A reply is a step when something has changed since the last one. */
static int is_step(pid_t thread, const struct call *call, const unsigned long long *arguments)
{
    static int changed;
    const unsigned long long creates = O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
    unsigned long long flags = 0;
    switch (call->when) {
    case ALWAYS:
        break;
    case OPEN:
        if (!(arguments[1] & creates)) return 0;
        break;
    case OPEN_AT:
        if (!(arguments[2] & creates)) return 0;
        break;
    case OPEN_AT2:
        read_memory(thread, arguments[2], &flags, sizeof flags);
        if (!(flags & creates)) return 0;
        break;
    case WRITE:
        if (is_kind(thread, arguments[0], "/dev/fuse")) {
            int was = changed;
            changed = 0;
            return was;
        }
        if (!is_kind(thread, arguments[0], "/") || is_kind(thread, arguments[0], "/dev/")) return 0;
        break;
    case IOCTL: /* FICLONE, FICLONERANGE, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR */
        if (arguments[1] != 0x40049409 && arguments[1] != 0x4020940d && arguments[1] != 0x40086602 && arguments[1] != 0x401c5820) return 0;
        break;
    }
    changed = 1;
    return 1;
}

static void note(int log, pid_t thread, const struct call *call, const unsigned long long *arguments)
{
    char line[2048];
    int length = snprintf(line, sizeof line, "%s", call->name);
    for (int i = 0; call->arguments[i]; i++) {
        char text[257] = "";
        switch (call->arguments[i]) {
        case 's':
            /* It may end close to the end of what is mapped. */
            for (int n = 0; n < 256 && read_memory(thread, arguments[i] + n, text + n, 1) == 1 && text[n]; n++) { }
            length += snprintf(line + length, sizeof line - length, " \"%s\"", text);
            break;
        case 'd':
            length += snprintf(line + length, sizeof line - length, " %d", (int)arguments[i]);
            break;
        case 'x':
            length += snprintf(line + length, sizeof line - length, " 0x%llx", arguments[i]);
            break;
        }
    }
    if (call->when == WRITE && is_kind(thread, arguments[0], "/dev/fuse")) length = snprintf(line, sizeof line, "reply");
    line[length++] = '\n';
    if (write(log, line, length) != length) fail("log");
}

int main(int count, char **words)
{
    if (count < 5) return 125;
    long last = atol(words[1]), steps = 0;
    const char *arm = words[2];
    int log = open(words[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log < 0) fail(words[3]);

    pid_t program = fork();
    if (program < 0) fail("fork");
    if (program == 0) {
        raise(SIGSTOP); /* until it is traced */
        filter_calls();
        execv(words[4], words + 4);
        fail(words[4]);
    }
    int status, result = 125;
    if (waitpid(program, &status, WUNTRACED) != program) fail("waitpid");
    long traced = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, program, 0, traced)) fail("ptrace");
    kill(program, SIGCONT);

    for (pid_t thread; (thread = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (thread <= 0) continue;
        if (!WIFSTOPPED(status)) {
            if (thread == program) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int event = status >> 16, signal = event ? 0 : WSTOPSIG(status);
        if (event == PTRACE_EVENT_SECCOMP) {
            struct user_regs_struct registers;
            if (!ptrace(PTRACE_GETREGS, thread, 0, &registers)) {
                unsigned long long arguments[] = {registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9};
                const struct call *call = calls;
                while (call->number != (long)registers.orig_rax) call++;
                if (is_step(thread, call, arguments) && access(arm, F_OK) == 0) {
                    note(log, thread, call, arguments);
                    if (++steps == last) kill(program, SIGKILL);
                }
            }
        }
        ptrace(PTRACE_CONT, thread, 0, signal); /* fails for what has just been killed */
    }
    return result;
}
