/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pattern.h"

#include "disk.h"
#include "variables.h"

#define MAGIC 0x32425250u

static struct contents {
    u32 magic, disk, lba;
    char word[36];
    u32 filler[115];
    u32 checksum;
} *const contents = (void *)sector;

static u32 checksum(void) { return fnv(FNV_START, sector, SECTOR_BYTES - 4); }

void pattern_make(u32 disk, u32 lba, const char *word)
{
    memset(contents, 0, sizeof *contents);
    contents->magic = MAGIC;
    contents->disk = disk;
    contents->lba = lba;
    memcpy(contents->word, word, text_length(word));
    u32 value = fnv(FNV_START, contents, 48);
    for (u32 i = 0; i < sizeof contents->filler / 4; i++)
        contents->filler[i] = value = value * 1664525u + 1013904223u;
    contents->checksum = checksum();
}

enum pattern pattern_check(u32 disk, u32 lba)
{
    u8 any = 0;
    for (u32 i = 0; i < SECTOR_BYTES; i++)
        any |= sector[i];
    if (!any)
        return PATTERN_BLANK;
    if (contents->magic != MAGIC || contents->checksum != checksum())
        return PATTERN_DAMAGED;
    return contents->disk == disk && contents->lba == lba ? PATTERN_GOOD : PATTERN_FOREIGN;
}

const char *pattern_word(void) { return contents->word; }
