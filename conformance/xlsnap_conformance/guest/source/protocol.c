/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The line protocol: one request in, one reply out. See the README one directory up. */
#include "protocol.h"

#include "console.h"
#include "disk.h"
#include "pattern.h"
#include "power.h"
#include "variables.h"

#define LINE_BYTES 160
#define MAX_WORDS 6
#define START_OF_REQUEST 0x15

static char line[LINE_BYTES];
static u32 line_length;
static char *words[MAX_WORDS]; /* id, command, arguments */

static struct {
    int running;
    u32 disk, lba, value;
} counter;

static void fail(const char *reason, u32 detail)
{
    reply_text("err ");
    reply_text(reason);
    reply_char(' ');
    reply_hex(detail);
}

static void ok(void) { reply_text("ok"); }

static void ok_with(const char *text)
{
    reply_text("ok ");
    reply_text(text);
}

static void done(int result)
{
    if (result)
        fail("io", (u32)result);
    else
        ok();
}

/* The value of a hexadecimal digit of either case; 16 if it is none. */
static u32 digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return (u32)(c - '0');
    c |= 32;
    return c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10) : 16;
}

/* Read a decimal or 0x… number; says whether it is one. */
static int number(const char *text, u32 *value)
{
    u32 base = 10;
    *value = 0;
    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    if (!*text)
        return 0;
    for (; *text; text++) {
        u32 digit = digit_value(*text);
        if (digit >= base || *value > (0xffffffffu - digit) / base)
            return 0;
        *value = *value * base + digit;
    }
    return 1;
}

/* Read the arguments "disk" and "lba" and check that there is such a sector. */
static int place(u32 *disk, u32 *lba)
{
    if (!number(words[2], disk) || !number(words[3], lba)) {
        fail("number", 0);
        return 0;
    }
    if (!disk_size(*disk)) {
        fail("nodisk", *disk);
        return 0;
    }
    if (*lba >= disk_size(*disk)) {
        fail("nosector", disk_size(*disk));
        return 0;
    }
    return 1;
}

static int fits(const char *text, u32 bytes)
{
    if (text_length(text) < bytes)
        return 1;
    fail("long", bytes - 1);
    return 0;
}

static void do_ping(void) { ok_with("pong"); }

static void do_set(void)
{
    if (!fits(words[2], KEY_BYTES) || !fits(words[3], VALUE_BYTES))
        return;
    if (variable_set(words[2], words[3]))
        ok();
    else
        fail("full", VARIABLES);
}

static void do_get(void)
{
    const char *value = variable_get(words[2]);
    if (value)
        ok_with(value);
    else
        fail("nokey", 0);
}

static void do_del(void)
{
    if (variable_delete(words[2]))
        ok();
    else
        fail("nokey", 0);
}

static void do_vars(void)
{
    reply_text("ok ");
    reply_decimal(variable_count());
    reply_char(' ');
    reply_hex(variable_sum());
}

static void do_tick(void)
{
    reply_text("ok ");
    reply_decimal(timer_ticks);
}

static void do_write(void)
{
    u32 disk, lba;
    if (!place(&disk, &lba) || !fits(words[4], WORD_BYTES))
        return;
    pattern_make(disk, lba, words[4]);
    done(disk_write(disk, lba));
}

static void do_read(void)
{
    u32 disk, lba;
    if (!place(&disk, &lba))
        return;
    int result = disk_read(disk, lba);
    if (result) {
        fail("io", (u32)result);
        return;
    }
    switch (pattern_check(disk, lba)) {
    case PATTERN_BLANK:
        ok_with("-");
        break;
    case PATTERN_GOOD:
        ok_with(pattern_word());
        break;
    case PATTERN_FOREIGN:
        fail("foreign", fnv(FNV_START, sector, SECTOR_BYTES));
        break;
    case PATTERN_DAMAGED:
        fail("bad", fnv(FNV_START, sector, SECTOR_BYTES));
        break;
    }
}

static void do_disk_sum(void)
{
    u32 disk, lba, count, hash = FNV_START;
    if (!place(&disk, &lba))
        return;
    if (!number(words[4], &count)) {
        fail("number", 0);
        return;
    }
    if (count > disk_size(disk) - lba) {
        fail("nosector", disk_size(disk));
        return;
    }
    for (; count--; lba++) {
        int result = disk_read(disk, lba);
        if (result) {
            fail("io", (u32)result);
            return;
        }
        hash = fnv(hash, sector, SECTOR_BYTES);
    }
    reply_text("ok ");
    reply_hex(hash);
}

static void do_flush(void)
{
    for (u32 disk = 0; disk < DISKS; disk++) {
        int result = disk_size(disk) ? disk_flush(disk) : DISK_OK;
        if (result) {
            fail("io", (u32)result);
            return;
        }
    }
    ok();
}

static void do_disks(void)
{
    ok();
    for (u32 disk = 0; disk < DISKS; disk++) {
        reply_char(' ');
        if (disk_is_cd(disk))
            reply_text("cd");
        else
            reply_decimal(disk_size(disk));
    }
}

static void do_rescan(void)
{
    disks_find();
    ok();
}

static void do_fill(void)
{
    u32 value;
    if (!number(words[2], &value)) {
        fail("number", 0);
        return;
    }
    for (u32 *word = memory; word < memory + MEMORY_BYTES / 4; word++)
        *word = value = value * 1664525u + 1013904223u;
    ok();
}

static void do_memory_sum(void)
{
    reply_text("ok ");
    reply_hex(fnv(FNV_START, memory, MEMORY_BYTES));
}

static void do_info(void)
{
    reply_text("ok probe2 boot=");
    reply_char(boot_path);
}

static void do_count(void)
{
    u32 disk, lba;
    if (!place(&disk, &lba))
        return;
    counter.disk = disk;
    counter.lba = lba;
    counter.value = 0;
    counter.running = 1;
    ok();
}

static void do_counted(void)
{
    reply_text("ok ");
    reply_decimal(counter.value);
}

static void do_stop(void)
{
    counter.running = 0;
    do_counted();
}

/* These two answer before they act: a client may then hang up, with nothing of the request still on its way. */
static void do_off(void)
{
    u32 port = power_port();
    if (!port) {
        fail("nopower", 0);
        return;
    }
    ok();
    reply_send();
    power_off(port);
    reply_begin(); /* in case that the machine goes on */
}

static void do_reboot(void)
{
    ok();
    reply_send();
    reboot();
}

static const struct command {
    const char *name;
    u32 arguments;
    void (*run)(void);
} commands[] = {
    {"ping", 0, do_ping},   {"set", 2, do_set},       {"get", 1, do_get},         {"del", 1, do_del},
    {"vars", 0, do_vars},   {"tick", 0, do_tick},     {"wr", 3, do_write},        {"rd", 2, do_read},
    {"dsum", 3, do_disk_sum}, {"flush", 0, do_flush}, {"disks", 0, do_disks},     {"rescan", 0, do_rescan},
    {"fill", 1, do_fill},   {"msum", 0, do_memory_sum}, {"info", 0, do_info},     {"count", 2, do_count},
    {"counted", 0, do_counted}, {"stop", 0, do_stop}, {"off", 0, do_off},         {"reboot", 0, do_reboot},
};

static u32 split(void)
{
    u32 count = 0;
    char *c = line;
    for (;;) {
        while (*c == ' ')
            *c++ = 0;
        if (!*c)
            return count;
        if (count == MAX_WORDS)
            return count + 1;
        words[count++] = c;
        while (*c && *c != ' ')
            c++;
    }
}

static void run_line(void)
{
    u32 count = split();
    if (!count)
        return;
    reply_begin();
    reply_text(words[0]);
    reply_char(' ');
    const struct command *command = commands;
    const struct command *end = commands + sizeof commands / sizeof *commands;
    if (count == 1)
        command = end;
    while (command < end && !text_equal(command->name, words[1]))
        command++;
    if (command == end)
        fail("command", 0);
    else if (count != command->arguments + 2)
        fail("arguments", command->arguments);
    else
        command->run();
    reply_send();
}

void protocol_byte(char c)
{
    if (c == START_OF_REQUEST) {
        line_length = 0;
    } else if (c != '\n' && c != '\r') {
        if (line_length < LINE_BYTES)
            line[line_length++] = c; /* a line that is full stays full: it is too long */
    } else {
        if (line_length < LINE_BYTES) {
            line[line_length] = 0;
            run_line();
        } else {
            console_print("!toolong\n");
        }
        line_length = 0;
    }
}

/* Write the counter to memory and to its sector in turn: the two never differ by more than one. */
int protocol_idle(void)
{
    char digits[11];
    char *first = digits + sizeof digits - 1;
    if (!counter.running)
        return 0;
    u32 rest = ++counter.value;
    *first = 0;
    do
        *--first = (char)('0' + rest % 10);
    while (rest /= 10);
    pattern_make(counter.disk, counter.lba, first);
    if (disk_write(counter.disk, counter.lba))
        counter.running = 0;
    return 1;
}
