/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "disk.h"

u8 sector[SECTOR_BYTES] __attribute__((aligned(4)));

void disks_find(void)
{
    ide_find();
    virtio_find();
}

static int is_ide(u32 disk) { return disk < KIND_DISKS; }

u32 disk_size(u32 disk)
{
    if (disk >= DISKS)
        return 0;
    return is_ide(disk) ? ide_size(disk) : virtio_size(disk - KIND_DISKS);
}

int disk_is_cd(u32 disk) { return is_ide(disk) && ide_is_cd(disk); }

static int transfer(u32 disk, int write, u32 lba)
{
    return is_ide(disk) ? ide_transfer(disk, write, lba) : virtio_transfer(disk - KIND_DISKS, write, lba);
}

int disk_read(u32 disk, u32 lba) { return transfer(disk, 0, lba); }

int disk_write(u32 disk, u32 lba) { return transfer(disk, 1, lba); }

int disk_flush(u32 disk) { return is_ide(disk) ? ide_flush(disk) : virtio_flush(disk - KIND_DISKS); }
