/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first serial port, with polled output. */
#include "console.h"

#define COM1 0x3f8
#define INTERRUPT_ENABLE (COM1 + 1)
#define FIFO_CONTROL (COM1 + 2)
#define LINE_CONTROL (COM1 + 3)
#define MODEM_CONTROL (COM1 + 4)
#define LINE_STATUS (COM1 + 5)
#define DATA_READY 0x01
#define TRANSMITTER_EMPTY 0x20

void console_start(void)
{
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, 0x80); /* divisor latch: 115200 baud */
    outb(COM1, 1);
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, 3); /* 8n1 */
    outb(FIFO_CONTROL, 7);
    outb(MODEM_CONTROL, 0x0b);
    outb(INTERRUPT_ENABLE, 1); /* an arriving byte ends HLT */
}

int console_ready(void) { return inb(LINE_STATUS) & DATA_READY; }

char console_read(void) { return (char)inb(COM1); }

static void put(char c)
{
    while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    outb(COM1, (u8)c);
}

void console_write(const char *bytes, u32 count)
{
    while (count--)
        put(*bytes++);
}
