/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Named values in memory: what a memory image must bring back. */
#ifndef VARIABLES_H
#define VARIABLES_H

#include "machine.h"

#define VARIABLES 64
#define KEY_BYTES 16   /* with the final zero */
#define VALUE_BYTES 48 /* with the final zero */

const char *variable_get(const char *key);           /* 0 if there is none */
int variable_set(const char *key, const char *value); /* 0 if there is no room */
int variable_delete(const char *key);                /* 0 if there is none */
u32 variable_count(void);
u32 variable_sum(void); /* independent of the order in which they were set */

int text_equal(const char *a, const char *b);
u32 text_length(const char *text);

#endif
