/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Interrupts, the timer, and the loop that waits for requests. */
#include "console.h"
#include "disk.h"
#include "machine.h"
#include "protocol.h"

#define TIMER_HZ 100
#define PIT_HZ 1193182

/* The local APIC, which no firmware has set up when we boot from ROM. */
#define APIC_SPURIOUS ((volatile u32 *)0xfee000f0)
#define APIC_LINT0 ((volatile u32 *)0xfee00350)
#define APIC_LINT1 ((volatile u32 *)0xfee00360)

volatile u32 timer_ticks;
char boot_path;
u32 *const memory = (u32 *)0x40000; /* link.ld keeps it free */

/* In start.S. */
void on_timer(void);
void on_console(void);
void on_other(void);
void on_exception(void);

static struct {
    u32 low, high;
} gates[256];

static void set_gate(u32 vector, void (*handler)(void))
{
    u32 address = (u32)handler;
    gates[vector].low = 8u << 16 | (address & 0xffff);
    gates[vector].high = (address & 0xffff0000) | 0x8e00;
}

static void start_interrupts(void)
{
    for (u32 vector = 0; vector < 256; vector++)
        set_gate(vector, vector < 32 ? on_exception : on_other);
    set_gate(0x20, on_timer);
    set_gate(0x24, on_console);
    struct {
        u16 limit;
        u32 base;
    } __attribute__((packed)) table = {sizeof gates - 1, (u32)gates};
    __asm__ volatile("lidt %0" ::"m"(table));

    *APIC_SPURIOUS = 0x1ff; /* on */
    *APIC_LINT0 = 0x700;    /* interrupts of the 8259 */
    *APIC_LINT1 = 0x10400;

    static const u8 first[] = {0x11, 0x20, 4, 1}, second[] = {0x11, 0x28, 2, 1};
    outb(0x20, first[0]);
    outb(0xa0, second[0]);
    for (u32 i = 1; i < 4; i++) {
        outb(0x21, first[i]);
        outb(0xa1, second[i]);
    }
    outb(0x21, 0xee); /* only the timer and the console */
    outb(0xa1, 0xff);

    outb(0x43, 0x34);
    outb(0x40, (PIT_HZ / TIMER_HZ) & 0xff);
    outb(0x40, (PIT_HZ / TIMER_HZ) >> 8);
}

void exception(void) { console_print("\n!exception\n"); }

void main(u32 path)
{
    boot_path = (char)path;
    console_start();
    start_interrupts();
    disks_find();
    console_print("\n!probe2\n");
    for (;;) {
        __asm__ volatile("cli");
        if (console_ready()) {
            char c = console_read();
            __asm__ volatile("sti");
            protocol_byte(c);
        } else if (protocol_idle()) {
            __asm__ volatile("sti; nop");
        } else {
            __asm__ volatile("sti; hlt"); /* no interrupt comes between the two */
        }
    }
}
