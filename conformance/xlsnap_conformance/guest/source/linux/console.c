/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's console, which is our standard input and output: hvc0 in a PV or PVH domain. */
#include "../console.h"

#include "linux.h"

#define TCGETS 0x5401
#define TCSETS 0x5402
#define POLLIN 1

static struct {
    u32 input, output, control, local;
    u8 line, special[19];
} terminal;

void console_start(void)
{
    if (call(SYS_IOCTL, 0, TCGETS, (u32)&terminal, 0, 0))
        return;
    terminal.input = terminal.output = terminal.local = 0; /* raw: no echo, no lines, no signals */
    terminal.special[6] = 1;                               /* VMIN */
    terminal.special[5] = 0;                               /* VTIME */
    call(SYS_IOCTL, 0, TCSETS, (u32)&terminal, 0, 0);
}

/* Wait for a byte, at most so many milliseconds; -1: for ever. Says whether there is one. */
int console_wait(int milliseconds)
{
    struct {
        int fd;
        u16 events, found;
    } input = {0, POLLIN, 0};
    return call(SYS_POLL, (u32)&input, 1, (u32)milliseconds, 0, 0) == 1;
}

u32 console_take(char *bytes, u32 count)
{
    int length = read(0, bytes, count);
    return length > 0 ? (u32)length : 0;
}

void console_write(const char *bytes, u32 count)
{
    while (count) {
        int written = call(SYS_WRITE, 1, (u32)bytes, count, 0, 0);
        if (written <= 0) { /* the console is full: it may be that nobody reads it */
            u32 wait[2] = {0, 1000000};
            call(SYS_NANOSLEEP, (u32)wait, 0, 0, 0, 0);
            continue;
        }
        bytes += written;
        count -= (u32)written;
    }
}
