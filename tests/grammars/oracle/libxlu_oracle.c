/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the real libxlu says about a text. Reads one request a line, answers each with one line of JSON.
 *
 * A request is a JSON array of strings that hold nothing but letters, digits and dashes, so that it can be
 * read without a JSON parser; bytes are written in hexadecimal:
 *     ["config", TEXT, KEY...]      the values of the keys
 *     ["disk", SPEC]                the fields of the disk
 *     ["time-config", TEXT, N]      the best time of N runs
 *     ["time-disk", SPEC, N]        likewise; a run is 1000 calls
 * Replies, with all texts in hexadecimal:
 *     {"accepted": true, "values": {KEY: TEXT or list}, "report": TEXT}
 *     {"accepted": true, "disk": {FIELD: TEXT, number, true, false or null}, "report": TEXT}
 *     {"accepted": false, "report": TEXT}      {"died": "signal N" or "exit N"}      {"seconds": N}      {"error": "..."}
 *
 * Each text is parsed in a child process, since some make libxlu end its process.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>
#include <libxlutil.h>

enum { DISK_CALLS_A_RUN = 1000, CHILD_SECONDS = 20 };

struct words {
    char **at;
    size_t count;
};

static void print_hex(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, "%02x", (unsigned char)*text);
    fputc('"', out);
}

/* Decodes in place; the result ends in NUL, and may hold others. */
static size_t from_hex(char *hex) {
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], 0};
        hex[i] = (char)strtol(digits, NULL, 16);
    }
    hex[length] = 0;
    return length;
}

/* Splits a JSON array of plain strings in place. */
static struct words split(char *line) {
    struct words words = {NULL, 0};
    size_t room = 0;
    for (char *quote = strchr(line, '"'); quote; quote = strchr(quote + 1, '"')) {
        if (words.count == room) {
            room = room ? room * 2 : 8;
            words.at = realloc(words.at, room * sizeof *words.at);
            if (!words.at) abort();
        }
        words.at[words.count++] = quote + 1;
        quote = strchr(quote + 1, '"');
        if (!quote) abort();
        *quote = 0;
    }
    return words;
}

static void print_value(FILE *out, XLU_Config *config, XLU_ConfigValue *value) {
    char *text;
    XLU_ConfigList *list;
    if (xlu_cfg_value_type(value) == XLU_STRING) {
        xlu_cfg_value_get_string(config, value, &text, 1);
        print_hex(out, text);
        return;
    }
    xlu_cfg_value_get_list(config, value, &list, 1);
    fputc('[', out);
    for (int i = 0; (value = xlu_cfg_get_listitem2(list, i)) != NULL; i++) {
        if (i) fputc(',', out);
        print_value(out, config, value);
    }
    fputc(']', out);
}

static void print_setting(FILE *out, XLU_Config *config, const char *key) {
    const char *text;
    XLU_ConfigList *list;
    if (xlu_cfg_get_string(config, key, &text, 1) == 0) {
        print_hex(out, text);
    } else if (xlu_cfg_get_list(config, key, &list, NULL, 1) == 0) {
        XLU_ConfigValue *value;
        fputc('[', out);
        for (int i = 0; (value = xlu_cfg_get_listitem2(list, i)) != NULL; i++) {
            if (i) fputc(',', out);
            print_value(out, config, value);
        }
        fputc(']', out);
    } else {
        fputs("null", out);
    }
}

static void config_reply(FILE *out, struct words words) {
    char *report = NULL;
    size_t report_length;
    FILE *report_file = open_memstream(&report, &report_length);
    XLU_Config *config = xlu_cfg_init(report_file, "config");
    size_t length = from_hex(words.at[1]);
    bool accepted = xlu_cfg_readdata(config, words.at[1], (int)length) == 0;
    fprintf(out, "{\"accepted\": %s", accepted ? "true" : "false");
    if (accepted) {
        const char *comma = "";
        fputs(", \"values\": {", out);
        for (size_t i = 2; i < words.count; i++) {
            fprintf(out, "%s\"%s\": ", comma, words.at[i]);
            from_hex(words.at[i]);
            print_setting(out, config, words.at[i]);
            comma = ", ";
        }
        fputc('}', out);
    }
    fflush(report_file);
    fputs(", \"report\": ", out);
    print_hex(out, report);
    fputs("}\n", out);
}

static void print_text(FILE *out, const char *name, const char *text) {
    fprintf(out, ", \"%s\": ", name);
    if (text)
        print_hex(out, text);
    else
        fputs("null", out);
}

static void print_defbool(FILE *out, const char *name, libxl_defbool value) {
    const char *text = libxl_defbool_is_default(value) ? "null" : libxl_defbool_val(value) ? "true" : "false";
    fprintf(out, ", \"%s\": %s", name, text);
}

static void disk_reply(FILE *out, struct words words) {
    char *report = NULL;
    size_t report_length;
    FILE *report_file = open_memstream(&report, &report_length);
    XLU_Config *config = xlu_cfg_init(report_file, "disk");
    libxl_device_disk disk;
    from_hex(words.at[1]);
    const char *spec = words.at[1];
    libxl_device_disk_init(&disk);
    bool accepted = xlu_disk_parse(config, 1, &spec, &disk) == 0;
    fprintf(out, "{\"accepted\": %s", accepted ? "true" : "false");
    if (accepted) {
        fprintf(out, ", \"disk\": {\"colo_port\": %d", disk.colo_port);
        fprintf(out, ", \"readwrite\": %s", disk.readwrite ? "true" : "false");
        fprintf(out, ", \"removable\": %s", disk.removable ? "true" : "false");
        fprintf(out, ", \"is_cdrom\": %s", disk.is_cdrom ? "true" : "false");
        fprintf(out, ", \"direct_io_safe\": %s", disk.direct_io_safe ? "true" : "false");
        print_defbool(out, "discard", disk.discard_enable);
        print_defbool(out, "colo", disk.colo_enable);
        print_text(out, "target", disk.pdev_path);
        print_text(out, "vdev", disk.vdev);
        print_text(out, "format", libxl_disk_format_to_string(disk.format));
        print_text(out, "backend", libxl_disk_backend_to_string(disk.backend));
        print_text(out, "specification", libxl_disk_specification_to_string(disk.specification));
        print_text(out, "backend_domname", disk.backend_domname);
        print_text(out, "script", disk.script);
        print_text(out, "colo_host", disk.colo_host);
        print_text(out, "colo_export", disk.colo_export);
        print_text(out, "active_disk", disk.active_disk);
        print_text(out, "hidden_disk", disk.hidden_disk);
        fputc('}', out);
    }
    fflush(report_file);
    fputs(", \"report\": ", out);
    print_hex(out, report);
    fputs("}\n", out);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void parse_disks(XLU_Config *config, const char *spec) {
    for (int i = 0; i < DISK_CALLS_A_RUN; i++) {
        libxl_device_disk disk;
        libxl_device_disk_init(&disk);
        xlu_disk_parse(config, 1, &spec, &disk);
        libxl_device_disk_dispose(&disk);
    }
}

static void time_reply(FILE *out, struct words words) {
    FILE *null = fopen("/dev/null", "w");
    size_t length = from_hex(words.at[1]);
    double best = 1e9;
    bool disks = strcmp(words.at[0], "time-disk") == 0;
    for (int run = atoi(words.at[2]); run > 0; run--) {
        double start = now();
        XLU_Config *config = xlu_cfg_init(null, "timed");
        if (disks)
            parse_disks(config, words.at[1]);
        else
            xlu_cfg_readdata(config, words.at[1], (int)length);
        xlu_cfg_destroy(config);
        double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    fprintf(out, "{\"seconds\": %.9f}\n", disks ? best / DISK_CALLS_A_RUN : best);
}

static const struct {
    const char *name;
    void (*reply)(FILE *, struct words);
    size_t words;
} KINDS[] = {
    {"config", config_reply, 2},
    {"disk", disk_reply, 2},
    {"time-config", time_reply, 3},
    {"time-disk", time_reply, 3},
};

static void reply(FILE *out, struct words words) {
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        if (words.count >= KINDS[i].words && strcmp(words.at[0], KINDS[i].name) == 0) {
            KINDS[i].reply(out, words);
            return;
        }
    }
    fputs("{\"error\": \"no such request\"}\n", out);
}

static void child(char *line) {
    char *text = NULL;
    size_t length;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (!freopen("/dev/null", "w", stderr)) abort();
    alarm(CHILD_SECONDS);
    FILE *out = open_memstream(&text, &length);
    reply(out, split(line));
    fclose(out);
    /* Nothing is written before all is known, so a child that is killed has written nothing. */
    for (char *rest = text; length > 0;) {
        ssize_t written = write(STDOUT_FILENO, rest, length);
        if (written < 0) _exit(1);
        rest += written;
        length -= (size_t)written;
    }
    _exit(0);
}

int main(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        int status;
        pid_t pid = fork();
        if (pid < 0) return 1;
        if (pid == 0) child(line);
        if (waitpid(pid, &status, 0) != pid) return 1;
        if (WIFSIGNALED(status))
            printf("{\"died\": \"signal %d\"}\n", WTERMSIG(status));
        else if (WEXITSTATUS(status) != 0)
            printf("{\"died\": \"exit %d\"}\n", WEXITSTATUS(status));
        fflush(stdout);
    }
    return 0;
}
