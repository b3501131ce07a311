/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "machine.h"

void *memcpy(void *to, const void *from, u32 count)
{
    u8 *target = to;
    const u8 *source = from;
    while (count--)
        *target++ = *source++;
    return to;
}

void *memset(void *to, int value, u32 count)
{
    u8 *target = to;
    while (count--)
        *target++ = (u8)value;
    return to;
}

u32 fnv(u32 hash, const void *data, u32 count)
{
    const u8 *byte = data;
    while (count--)
        hash = (hash ^ *byte++) * 16777619u;
    return hash;
}

u32 pci_address(u32 device, u32 function) { return 0x80000000u | device << 11 | function << 8; }

u32 pci_read(u32 address)
{
    outl(0xcf8, address);
    return inl(0xcfc);
}

void pci_write(u32 address, u32 value)
{
    outl(0xcf8, address);
    outl(0xcfc, value);
}
