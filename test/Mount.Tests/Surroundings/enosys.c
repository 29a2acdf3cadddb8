/*
 * Runs a program on a kernel that lacks some system calls: enosys CALL[,CALL...][=ERRNO] PROGRAM [ARGUMENT...]
 *
 * A CALL is its number, or NUMBER:ARGUMENT for those with that second argument, as ioctl(2) has its requests.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct sock_filter filter[64];
    unsigned short length = 0;
    if (count < 3) { return 2; }
    char *equals = strchr(words[1], '=');
    unsigned answer = equals == NULL ? ENOSYS : (unsigned)strtoul(equals + 1, NULL, 10);
    if (equals != NULL) { *equals = 0; }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (char *rest = words[1]; *rest != 0 && length < 58;)
    {
        unsigned number = strtoul(rest, &rest, 10);
        if (*rest == ':')
        {
            filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
            filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1]));
            filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)strtoul(rest + 1, &rest, 0), 0, 1);
            filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer);
            filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
        }
        else
        {
            filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
            filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer);
        }
        if (*rest == ',') { rest++; }
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = { length, filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    {
        perror("enosys");
        return 2;
    }
    execvp(words[2], words + 2);
    perror(words[2]);
    return 127;
}
