/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The console, and a reply that is put together before it is sent. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "machine.h"

void console_start(void);
int console_ready(void); /* whether a byte has arrived */
char console_read(void);
void console_write(const char *bytes, u32 count);
void console_print(const char *text);

void reply_begin(void);
void reply_char(char c);
void reply_text(const char *text);
void reply_decimal(u32 value);
void reply_hex(u32 value); /* eight digits */
void reply_send(void);

#endif
