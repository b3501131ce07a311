/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Up to eight disks: 0 to 3 are IDE (hda to hdd), 4 to 7 virtio-blk in the order of their PCI slots. */
#ifndef DISK_H
#define DISK_H

#include "machine.h"

#define DISKS 8
#define SECTOR_BYTES 512

/* What a disk operation returns: DISK_OK, or the device's own error in the low byte. */
#define DISK_OK 0
#define DISK_ERROR 0x100
#define DISK_TIMEOUT 0x200

extern u8 sector[SECTOR_BYTES]; /* the one buffer of all transfers */

void disks_find(void);
u32 disk_size(u32 disk); /* in sectors; 0 if there is none */
int disk_is_cd(u32 disk);
int disk_read(u32 disk, u32 lba);  /* into the buffer */
int disk_write(u32 disk, u32 lba); /* from the buffer */
int disk_flush(u32 disk);

/* The two kinds of disks; numbers count from 0 within a kind. */
#define KIND_DISKS 4
void ide_find(void);
u32 ide_size(u32 disk);
int ide_is_cd(u32 disk);
int ide_transfer(u32 disk, int write, u32 lba);
int ide_flush(u32 disk);

void virtio_find(void);
u32 virtio_size(u32 disk);
int virtio_transfer(u32 disk, int write, u32 lba);
int virtio_flush(u32 disk);

#endif
