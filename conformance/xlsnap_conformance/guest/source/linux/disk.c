/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Disks 0 to 7 are xvda to xvdh, which is also how Linux calls hda to hdd of a Xen domain.
 *
 * A disk is open only while a request is carried out: so it is found whenever it comes, and can be taken away.
 * Nothing is cached (O_DIRECT).
 */
#include "../disk.h"

#include "linux.h"

#define BLKGETSIZE64 0x80041272u
#define SECTORS_MAX 0xffffffffu

u8 sector[SECTOR_BYTES] __attribute__((aligned(SECTOR_BYTES)));

static struct {
    int fd;
    u32 disk;
} opened = {-1, 0};

void disks_find(void) {}

void disks_rest(void)
{
    if (opened.fd >= 0)
        close(opened.fd);
    opened.fd = -1;
}

/* A descriptor of the disk, or minus the error's number. */
static int use(u32 disk)
{
    if (opened.fd >= 0 && opened.disk == disk)
        return opened.fd;
    disks_rest();
    char path[] = "/dev/xvd?";
    path[8] = (char)('a' + disk);
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    opened.fd = fd;
    opened.disk = disk;
    return fd;
}

int disk_is_cd(u32 disk)
{
    char path[] = "/sys/block/xvd?/removable", answer = '0';
    path[14] = (char)('a' + disk);
    int fd = disk < DISKS ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    read(fd, &answer, 1);
    close(fd);
    return answer == '1';
}

u32 disk_size(u32 disk)
{
    u32 bytes[2] = {0, 0}; /* low, high */
    int fd = disk < DISKS && !disk_is_cd(disk) ? use(disk) : -1;
    if (fd < 0 || call(SYS_IOCTL, (u32)fd, BLKGETSIZE64, (u32)bytes, 0, 0))
        return 0;
    return bytes[1] >> 9 ? SECTORS_MAX : bytes[0] >> 9 | bytes[1] << 23;
}

static int failed(int result) { return DISK_ERROR | (-result & 0xff); }

static int transfer(u32 disk, u32 number, u32 lba)
{
    int fd = use(disk);
    if (fd < 0)
        return failed(fd);
    int result = call(number, (u32)fd, (u32)sector, SECTOR_BYTES, lba << 9, lba >> 23);
    if (result == SECTOR_BYTES)
        return DISK_OK;
    return failed(result < 0 ? result : 0);
}

int disk_read(u32 disk, u32 lba) { return transfer(disk, SYS_PREAD64, lba); }

int disk_write(u32 disk, u32 lba) { return transfer(disk, SYS_PWRITE64, lba); }

int disk_flush(u32 disk)
{
    int fd = use(disk);
    int result = fd < 0 ? fd : call(SYS_FSYNC, (u32)fd, 0, 0, 0, 0);
    return result ? failed(result) : DISK_OK;
}
