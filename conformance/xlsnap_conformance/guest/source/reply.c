/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A reply, put together before it is sent. */
#include "console.h"
#include "variables.h"

static char reply[256];
static u32 reply_length;

void console_print(const char *text) { console_write(text, text_length(text)); }

void reply_begin(void) { reply_length = 0; }

void reply_char(char c)
{
    if (reply_length < sizeof reply - 1) /* the last one is for the end of the line */
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
    reply[reply_length++] = '\n';
    console_write(reply, reply_length);
    reply_length = 0;
}
