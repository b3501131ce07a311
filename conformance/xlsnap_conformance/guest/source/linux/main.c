/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The probe as the first process of Linux: for PV and PVH domains, which have no virtual hardware of old. */
#include "../console.h"
#include "../disk.h"
#include "../power.h"
#include "../protocol.h"
#include "linux.h"

#define CLOCK_MONOTONIC 1
#define REBOOT_MAGIC 0xfee1deadu, 672274793u
#define POWER_OFF 0x4321fedcu
#define RESTART 0x01234567u

#define DISK_WAIT 250   /* times 20 ms */
#define CONSOLE_WAIT 10 /* times 20 ms */

int console_wait(int milliseconds);
u32 console_take(char *bytes, u32 count);
void disks_rest(void); /* close what is open */

volatile u32 timer_ticks;
char boot_path = 'l';

static u32 pattern[MEMORY_BYTES / 4];
u32 *const memory = pattern;

u32 power_port(void) { return 1; }


/* Ticks of 10 ms on the clock that stands still while the domain is saved. */
static u32 ticks(void)
{
    u32 now[2]; /* seconds, nanoseconds */
    call(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (u32)now, 0, 0, 0);
    return now[0] * 100 + now[1] / 10000000;
}

static void sleep_20ms(void)
{
    u32 time[2] = {0, 20000000};
    call(SYS_NANOSLEEP, (u32)time, 0, 0, 0, 0);
}

/* The reply is on its way through the console, which goes away with the domain. */
static void end(u32 how)
{
    for (u32 i = 0; i < CONSOLE_WAIT; i++)
        sleep_20ms();
    call(SYS_REBOOT, REBOOT_MAGIC, how, 0, 0);
}

void power_off(u32 port)
{
    (void)port;
    end(POWER_OFF);
}

void reboot(void) { end(RESTART); }

/* The number of entries of a directory whose names begin so. */
static u32 entries(const char *directory, const char *prefix)
{
    static char buffer[4096] __attribute__((aligned(8)));
    u32 found = 0;
    int length, fd = open(directory, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    while ((length = call(SYS_GETDENTS64, (u32)fd, (u32)buffer, sizeof buffer, 0, 0)) > 0) {
        /* each: inode and offset of 8 bytes, length of the record in 2, type in 1, name */
        for (char *at = buffer; at < buffer + length; at += *(u16 *)(at + 16)) {
            const char *name = at + 19, *wanted = prefix;
            while (*wanted && *wanted == *name)
                wanted++, name++;
            found += !*wanted;
        }
    }
    close(fd);
    return found;
}

static void load_module(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* built in */
    call(SYS_FINIT_MODULE, (u32)fd, (u32) "", 0, 0, 0);
    close(fd);
}

static void mount(const char *type, const char *at)
{
    call(SYS_MOUNT, (u32)type, (u32)at, (u32)type, 0, 0);
}

static void find_disks(void)
{
    mount("devtmpfs", "/dev");
    mount("sysfs", "/sys");
    load_module("/xen-blkfront.ko");
    for (u32 i = 0; i < DISK_WAIT; i++) {
        if (entries("/sys/block", "xvd") >= entries("/sys/bus/xen/devices", "vbd-"))
            return;
        sleep_20ms();
    }
}

__attribute__((noreturn)) void _start(void)
{
    char bytes[64];
    if (call(SYS_GETPID, 0, 0, 0, 0, 0) != 1) { /* it would mount over the /dev of a whole system */
        console_print("the probe is the first process of a guest\n");
        call(SYS_EXIT, 2, 0, 0, 0, 0);
    }
    console_start(); /* first: until then the kernel echoes what is typed */
    find_disks();
    u32 start = ticks();
    console_print("\n!probe2\n");
    for (;;) {
        int busy = protocol_idle();
        if (!busy)
            disks_rest();
        if (!console_wait(busy ? 0 : -1))
            continue;
        u32 count = console_take(bytes, sizeof bytes);
        timer_ticks = ticks() - start;
        for (u32 i = 0; i < count; i++)
            protocol_byte(bytes[i]);
        if (!count)
            sleep_20ms(); /* the console was closed: it may be opened again */
    }
}
