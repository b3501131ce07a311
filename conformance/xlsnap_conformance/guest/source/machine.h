/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Integers, port I/O, and the two functions that the compiler may call by itself. */
#ifndef MACHINE_H
#define MACHINE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }

static inline u8 inb(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u16 inw(u16 port)
{
    u16 value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline u32 inl(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline void barrier(void) { __asm__ volatile("lock orl $0, (%%esp)" ::: "memory"); }

void *memcpy(void *to, const void *from, u32 count);
void *memset(void *to, int value, u32 count);

/* FNV-1a, 32 bits: the checksum of everything. */
#define FNV_START 2166136261u
u32 fnv(u32 hash, const void *data, u32 count);

/* PCI configuration space: address made by pci_address, offset added to it. */
u32 pci_address(u32 device, u32 function);
u32 pci_read(u32 address);
void pci_write(u32 address, u32 value);

#endif
