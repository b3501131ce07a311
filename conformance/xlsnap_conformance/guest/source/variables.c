/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "variables.h"

static struct variable {
    char key[KEY_BYTES], value[VALUE_BYTES];
} variables[VARIABLES];

int text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

u32 text_length(const char *text)
{
    u32 length = 0;
    while (text[length])
        length++;
    return length;
}

static struct variable *find(const char *key)
{
    for (struct variable *variable = variables; variable < variables + VARIABLES; variable++)
        if (text_equal(variable->key, key))
            return variable;
    return 0;
}

const char *variable_get(const char *key)
{
    struct variable *variable = find(key);
    return variable ? variable->value : 0;
}

int variable_set(const char *key, const char *value)
{
    struct variable *variable = find(key);
    if (!variable)
        variable = find(""); /* a free one */
    if (!variable)
        return 0;
    memset(variable, 0, sizeof *variable);
    memcpy(variable->key, key, text_length(key));
    memcpy(variable->value, value, text_length(value));
    return 1;
}

int variable_delete(const char *key)
{
    struct variable *variable = find(key);
    if (!variable)
        return 0;
    memset(variable, 0, sizeof *variable);
    return 1;
}

u32 variable_count(void)
{
    u32 count = 0;
    for (u32 i = 0; i < VARIABLES; i++)
        count += variables[i].key[0] != 0;
    return count;
}

u32 variable_sum(void)
{
    u32 sum = 0;
    for (u32 i = 0; i < VARIABLES; i++)
        if (variables[i].key[0])
            sum += fnv(FNV_START, &variables[i], sizeof variables[i]);
    return sum;
}
