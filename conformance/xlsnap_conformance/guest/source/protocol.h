/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include "machine.h"

#define MEMORY_BYTES 0x40000u

extern volatile u32 timer_ticks; /* counted by the timer interrupt */
extern char boot_path;           /* r: ROM, b: BIOS, k: multiboot, l: Linux */
extern u32 *const memory;        /* what the command "fill" fills: MEMORY_BYTES */

void protocol_byte(char c); /* take one byte from the console */
int protocol_idle(void);    /* work that goes on between requests; says whether there was any */

#endif
