/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "console.h"

#define COM1 0x3f8
#define INTERRUPT_ENABLE (COM1 + 1)
#define FIFO_CONTROL (COM1 + 2)
#define LINE_CONTROL (COM1 + 3)
#define MODEM_CONTROL (COM1 + 4)
#define LINE_STATUS (COM1 + 5)
#define DATA_READY 0x01
#define TRANSMITTER_EMPTY 0x20

static char reply[256];
static u32 reply_length;

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

void console_print(const char *text)
{
    while (*text)
        put(*text++);
}

void reply_begin(void) { reply_length = 0; }

void reply_char(char c)
{
    if (reply_length < sizeof reply)
        reply[reply_length++] = c;
}

void reply_text(const char *text)
{
    while (*text)
        reply_char(*text++);
}

void reply_decimal(u32 value)
{
    char digits[10];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        reply_char(digits[--count]);
}

void reply_hex(u32 value)
{
    for (int shift = 28; shift >= 0; shift -= 4)
        reply_char("0123456789abcdef"[value >> shift & 15]);
}

void reply_send(void)
{
    for (u32 i = 0; i < reply_length; i++)
        put(reply[i]);
    put('\n');
}
