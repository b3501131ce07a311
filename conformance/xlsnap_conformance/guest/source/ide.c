/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* IDE disks by programmed I/O, one sector at a time, 28-bit addresses. */
#include "disk.h"

enum { NONE, DISK, CD };

enum { REG_DATA, REG_ERROR, REG_COUNT, REG_LBA0, REG_LBA1, REG_LBA2, REG_DEVICE, REG_STATUS };
#define REG_COMMAND REG_STATUS

#define STATUS_ERROR 0x01
#define STATUS_DATA 0x08
#define STATUS_FAULT 0x20
#define STATUS_READY 0x40
#define STATUS_BUSY 0x80

#define COMMAND_READ 0x20
#define COMMAND_WRITE 0x30
#define COMMAND_FLUSH 0xe7
#define COMMAND_IDENTIFY 0xec

#define POLLS 4000000u

static const u16 base_ports[2] = {0x1f0, 0x170};
static const u16 control_ports[2] = {0x3f6, 0x376};
static u8 kinds[KIND_DISKS];
static u32 sizes[KIND_DISKS];

static u16 base(u32 disk) { return base_ports[disk >> 1]; }

static void settle(u32 disk)
{
    for (int i = 0; i < 4; i++) /* 400 ns */
        inb(control_ports[disk >> 1]);
}

/* Wait until the device is no longer busy and shows the wanted status bits. */
static int await_status(u32 disk, u8 wanted)
{
    for (u32 i = 0; i < POLLS; i++) {
        u8 status = inb(base(disk) + REG_STATUS);
        if (status == 0xff)
            return DISK_ERROR | 0xff; /* nothing on this bus */
        if (status & STATUS_BUSY)
            continue;
        if (status & (STATUS_ERROR | STATUS_FAULT))
            return DISK_ERROR | inb(base(disk) + REG_ERROR);
        if ((status & wanted) == wanted)
            return DISK_OK;
    }
    return DISK_TIMEOUT;
}

static int command(u32 disk, u8 code, u32 lba, u8 count)
{
    u16 port = base(disk);
    outb(control_ports[disk >> 1], 2); /* no interrupts */
    outb(port + REG_DEVICE, (u8)(0xe0 | (disk & 1) << 4 | (lba >> 24 & 15)));
    settle(disk);
    for (u32 i = 0; inb(port + REG_STATUS) & STATUS_BUSY; i++)
        if (i == POLLS)
            return DISK_TIMEOUT;
    outb(port + REG_COUNT, count);
    outb(port + REG_LBA0, (u8)lba);
    outb(port + REG_LBA1, (u8)(lba >> 8));
    outb(port + REG_LBA2, (u8)(lba >> 16));
    outb(port + REG_COMMAND, code);
    settle(disk);
    return DISK_OK;
}

static void read_data(u32 disk)
{
    void *to = sector;
    u32 words = SECTOR_BYTES / 2;
    __asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(base(disk)) : "memory");
}

static void write_data(u32 disk)
{
    const void *from = sector;
    u32 words = SECTOR_BYTES / 2;
    __asm__ volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(base(disk)) : "memory");
}

static int has_cd_signature(u32 disk)
{
    return inb(base(disk) + REG_LBA1) == 0x14 && inb(base(disk) + REG_LBA2) == 0xeb;
}

static void find_one(u32 disk)
{
    kinds[disk] = NONE;
    sizes[disk] = 0;
    if (inb(base(disk) + REG_STATUS) == 0xff)
        return;
    outb(base(disk) + REG_DEVICE, (u8)(0xa0 | (disk & 1) << 4));
    settle(disk);
    if (inb(base(disk) + REG_STATUS) == 0) {
        if (has_cd_signature(disk))
            kinds[disk] = CD;
        return;
    }
    if (command(disk, COMMAND_IDENTIFY, 0, 0))
        return;
    if (await_status(disk, STATUS_DATA)) {
        if (has_cd_signature(disk))
            kinds[disk] = CD;
        return;
    }
    read_data(disk);
    kinds[disk] = DISK;
    memcpy(&sizes[disk], sector + 120, 4); /* words 60 and 61: sectors */
}

void ide_find(void)
{
    for (u32 disk = 0; disk < KIND_DISKS; disk++)
        find_one(disk);
}

u32 ide_size(u32 disk) { return sizes[disk]; }

int ide_is_cd(u32 disk) { return kinds[disk] == CD; }

int ide_transfer(u32 disk, int write, u32 lba)
{
    int result = command(disk, write ? COMMAND_WRITE : COMMAND_READ, lba, 1);
    if (!result)
        result = await_status(disk, STATUS_DATA);
    if (result)
        return result;
    if (!write) {
        read_data(disk);
        return DISK_OK;
    }
    write_data(disk);
    return await_status(disk, 0);
}

int ide_flush(u32 disk)
{
    int result = command(disk, COMMAND_FLUSH, 0, 0);
    return result ? result : await_status(disk, 0);
}
