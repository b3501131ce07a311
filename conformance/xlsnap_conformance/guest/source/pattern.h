/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Patterned sectors: each says which disk and sector it was written to, and carries a word and a checksum.
 *
 *   0   "PRB2"
 *   4   disk number
 *   8   sector number
 *   12  the word, padded with zero bytes to 36 bytes
 *   48  filler that depends on all of the above
 *   508 FNV-1a of bytes 0 to 507
 */
#ifndef PATTERN_H
#define PATTERN_H

#include "machine.h"

#define WORD_BYTES 32 /* with the final zero */

enum pattern { PATTERN_BLANK, PATTERN_GOOD, PATTERN_DAMAGED, PATTERN_FOREIGN };

void pattern_make(u32 disk, u32 lba, const char *word);
enum pattern pattern_check(u32 disk, u32 lba);
const char *pattern_word(void);

#endif
