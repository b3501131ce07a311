/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef POWER_H
#define POWER_H

void power_off(void); /* returns only if the machine has no power management */
void reboot(void);

#endif
