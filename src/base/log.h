/*
 * Logging: one line per event, to standard error, with a level and a subject.
 *
 * Thread: any. Lines are written whole. Never log credentials, keystrokes or clipboard text.
 * Strings that came from a client, guest or device pass through log_escape() first.
 */
#ifndef QRDP_BASE_LOG_H
#define QRDP_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum LogLevel {
    LOG_LEVEL_ERROR,   /* the operator must act */
    LOG_LEVEL_WARNING, /* something was refused or degraded */
    LOG_LEVEL_INFO,    /* a session or device came or went */
    LOG_LEVEL_DEBUG,   /* why a decision was taken */
    LOG_LEVEL_TRACE,   /* every message; never its payload */
} LogLevel;

void log_set_level(LogLevel level);
LogLevel log_get_level(void);
/** Reads "error", "warning", "info", "debug" or "trace". */
bool log_level_from_string(const char *text, LogLevel *level);

/** One line "qrdp: level: [subject] text". @subject may be NULL. */
void log_line(LogLevel level, const char *subject, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define log_error(subject, ...) log_line(LOG_LEVEL_ERROR, subject, __VA_ARGS__)
#define log_warning(subject, ...) log_line(LOG_LEVEL_WARNING, subject, __VA_ARGS__)
#define log_info(subject, ...) log_line(LOG_LEVEL_INFO, subject, __VA_ARGS__)
#define log_debug(subject, ...) log_line(LOG_LEVEL_DEBUG, subject, __VA_ARGS__)
#define log_trace(subject, ...) log_line(LOG_LEVEL_TRACE, subject, __VA_ARGS__)

/** Copies @text (@len bytes, or up to its NUL when @len is SIZE_MAX) into @out with everything but
 * printable ASCII and valid UTF-8 letters escaped as \\xNN; always terminates, truncates to @size.
 * Returns @out. */
const char *log_escape(char *out, size_t size, const char *text, size_t len);

/** A limiter for lines that a peer can provoke: true for the first @burst calls in a window of
 * @window_us, then false. @now_us is monotonic. Zero-initialise it. */
typedef struct LogLimit {
    uint64_t window_start;
    uint32_t count;
} LogLimit;
bool log_limit(LogLimit *limit, uint64_t now_us, uint64_t window_us, uint32_t burst);

#endif
