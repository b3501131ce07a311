/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef POWER_H
#define POWER_H

#include "machine.h"

u32 power_port(void); /* 0 if the machine has no power management */
void power_off(u32 port);
void reboot(void);

#endif
