/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System calls of 32-bit x86 Linux, without a C library. Numbers and structures: the kernel's uapi headers. */
#ifndef LINUX_H
#define LINUX_H

#include "../machine.h"

enum {
    SYS_EXIT = 1,
    SYS_READ = 3,
    SYS_WRITE = 4,
    SYS_OPEN = 5,
    SYS_CLOSE = 6,
    SYS_GETPID = 20,
    SYS_MOUNT = 21,
    SYS_IOCTL = 54,
    SYS_REBOOT = 88,
    SYS_FSYNC = 118,
    SYS_NANOSLEEP = 162,
    SYS_POLL = 168,
    SYS_PREAD64 = 180,
    SYS_PWRITE64 = 181,
    SYS_GETDENTS64 = 220,
    SYS_CLOCK_GETTIME = 265,
    SYS_FINIT_MODULE = 350,
};

#define O_RDONLY 0
#define O_RDWR 2
#define O_DIRECT 040000
#define O_CLOEXEC 02000000

/* The result, or minus the error's number. */
static inline int call(u32 number, u32 a, u32 b, u32 c, u32 d, u32 e)
{
    int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory");
    return result;
}

static inline int open(const char *path, u32 flags) { return call(SYS_OPEN, (u32)path, flags, 0, 0, 0); }

static inline void close(int fd) { call(SYS_CLOSE, (u32)fd, 0, 0, 0, 0); }

static inline int read(int fd, void *to, u32 count) { return call(SYS_READ, (u32)fd, (u32)to, count, 0, 0); }

#endif
