/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Soft power off through the PIIX4 power management function; reset through port 0xcf9. */
#include "power.h"

#include "machine.h"

#define PCI_ID_PIIX4_PM 0x71138086u
#define PM_BASE 0x40
#define PM_MISC 0x80
#define PM_IO_ENABLE 1u
#define PM_DEFAULT_BASE 0x600u
#define PM_CONTROL 4
#define SLEEP_ENABLE (1u << 13) /* with sleep type 0, which is "off" on this chip */

u32 power_port(void)
{
    for (u32 device = 0; device < 32; device++) {
        u32 pci = pci_address(device, 3);
        if (pci_read(pci) != PCI_ID_PIIX4_PM)
            continue;
        if (!(pci_read(pci + PM_MISC) & PM_IO_ENABLE)) { /* no firmware has placed it */
            pci_write(pci + PM_BASE, PM_DEFAULT_BASE | 1);
            pci_write(pci + PM_MISC, pci_read(pci + PM_MISC) | PM_IO_ENABLE);
        }
        return (pci_read(pci + PM_BASE) & 0xffc0) + PM_CONTROL;
    }
    return 0;
}

void power_off(u32 port) { outw((u16)port, SLEEP_ENABLE); }

void reboot(void)
{
    outb(0xcf9, 2);
    outb(0xcf9, 6);
    outb(0x64, 0xfe); /* keyboard controller: pulse the reset line */
    for (;;)
        __asm__ volatile("cli; hlt");
}
