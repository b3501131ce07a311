/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* virtio-blk through the legacy PCI interface (virtio 1.0, 4.1.4.8), one request at a time, no interrupts. */
#include "disk.h"

enum {
    REG_HOST_FEATURES = 0,
    REG_GUEST_FEATURES = 4,
    REG_QUEUE_PAGE = 8,
    REG_QUEUE_SIZE = 12,
    REG_QUEUE_SELECT = 14,
    REG_QUEUE_NOTIFY = 16,
    REG_STATUS = 18,
    REG_ISR = 19,
    REG_CAPACITY = 20,
};

#define PCI_ID_VIRTIO_BLK 0x10011af4u
#define PCI_COMMAND 4
#define PCI_BAR0 0x10
#define PCI_IO_AND_MASTER 5

/* Where devices are placed if no firmware has: by slot, so that a later one cannot come to lie on another. */
#define IO_BASE 0xd000
#define IO_BYTES 0x80

#define STATUS_RESET 0
#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define FEATURE_FLUSH (1u << 9)

#define REQUEST_READ 0
#define REQUEST_WRITE 1
#define REQUEST_FLUSH 4

#define MAX_QUEUE 256
#define QUEUE_BYTES 16384
#define POLLS 400000000u

#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_DEVICE_WRITES 2

struct descriptor {
    u32 address, address_high, length;
    u16 flags, next;
};

static struct device {
    u16 port, queue_size, last_used;
    int can_flush;
    u32 size;
    u8 *queue;
} devices[KIND_DISKS];

static u8 queues[KIND_DISKS][QUEUE_BYTES] __attribute__((aligned(4096)));
static struct {
    u32 type, priority, sector_low, sector_high;
} header;
static volatile u8 request_status;
static u32 found;

static int start(struct device *device, u32 slot, u32 number)
{
    u32 pci = pci_address(slot, 0);
    u32 bar = pci_read(pci + PCI_BAR0);
    if (!(bar & ~3u)) { /* no firmware has placed it */
        pci_write(pci + PCI_BAR0, IO_BASE + IO_BYTES * slot);
        bar = pci_read(pci + PCI_BAR0);
    }
    pci_write(pci + PCI_COMMAND, (pci_read(pci + PCI_COMMAND) & 0xffff) | PCI_IO_AND_MASTER);
    u16 port = device->port = (u16)(bar & ~3u);
    outb(port + REG_STATUS, STATUS_RESET);
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE);
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    u32 features = inl(port + REG_HOST_FEATURES) & FEATURE_FLUSH;
    device->can_flush = features != 0;
    outl(port + REG_GUEST_FEATURES, features);
    outw(port + REG_QUEUE_SELECT, 0);
    device->queue_size = inw(port + REG_QUEUE_SIZE);
    if (!device->queue_size || device->queue_size > MAX_QUEUE)
        return 0;
    device->queue = queues[number];
    memset(device->queue, 0, QUEUE_BYTES);
    device->last_used = 0;
    outl(port + REG_QUEUE_PAGE, (u32)device->queue >> 12);
    outb(port + REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
    device->size = inl(port + REG_CAPACITY);
    return 1;
}

void virtio_find(void)
{
    found = 0;
    for (u32 slot = 0; slot < 32 && found < KIND_DISKS; slot++)
        if (pci_read(pci_address(slot, 0)) == PCI_ID_VIRTIO_BLK && start(&devices[found], slot, found))
            found++;
}

static int request(u32 disk, u32 type, u32 lba)
{
    struct device *device = &devices[disk];
    struct descriptor *table = (void *)device->queue;
    volatile u16 *available = (void *)(table + device->queue_size);
    u32 used_offset = (sizeof *table * device->queue_size + 6u + 2u * device->queue_size + 4095) & ~4095u;
    volatile u16 *used = (void *)(device->queue + used_offset);
    u16 count = 0;

    header.type = type;
    header.priority = 0;
    header.sector_low = lba;
    header.sector_high = 0;
    request_status = 0xff;
    table[count++] = (struct descriptor){(u32)&header, 0, sizeof header, DESCRIPTOR_NEXT, 1};
    if (type != REQUEST_FLUSH) {
        u16 flags = DESCRIPTOR_NEXT | (type == REQUEST_READ ? DESCRIPTOR_DEVICE_WRITES : 0);
        table[count++] = (struct descriptor){(u32)sector, 0, SECTOR_BYTES, flags, 2};
    }
    table[count] = (struct descriptor){(u32)&request_status, 0, 1, DESCRIPTOR_DEVICE_WRITES, 0};

    available[0] = 1; /* no interrupts */
    available[2 + available[1] % device->queue_size] = 0;
    barrier();
    available[1]++;
    barrier();
    outw(device->port + REG_QUEUE_NOTIFY, 0);
    for (u32 i = 0; i < POLLS; i++) {
        if (used[1] != device->last_used) {
            device->last_used = used[1];
            inb(device->port + REG_ISR);
            return request_status ? DISK_ERROR | request_status : DISK_OK;
        }
        __asm__ volatile("pause" ::: "memory");
    }
    return DISK_TIMEOUT;
}

u32 virtio_size(u32 disk) { return disk < found ? devices[disk].size : 0; }

int virtio_transfer(u32 disk, int write, u32 lba)
{
    return request(disk, write ? REQUEST_WRITE : REQUEST_READ, lba);
}

int virtio_flush(u32 disk) { return devices[disk].can_flush ? request(disk, REQUEST_FLUSH, 0) : DISK_OK; }
