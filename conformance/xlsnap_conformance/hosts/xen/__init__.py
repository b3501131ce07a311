# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Xen host inside QEMU, made of Debian packages: build it, boot it, freeze it, talk to its dom0.

::

    packages ──> contents (elf, kernel, cpio) ──> build ──> machine (QEMU) ──> nested ──> frozen
    (apt)        what goes into dom0              cached     command line      agent      cached

Nothing needs root: apt works in a directory of ours, packages are read as archives, and the initial ramdisk
says of its files who owns them. A key over all that decides the result names each thing in the cache, so
that what is there is never out of date.
"""
