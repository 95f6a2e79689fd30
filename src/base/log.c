#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX_LINE 1024

static atomic_int log_level = LOG_LEVEL_INFO;

static const char *const level_names[] = {"error", "warning", "info", "debug", "trace"};

void log_set_level(LogLevel level)
{
    atomic_store(&log_level, (int)level);
}

LogLevel log_get_level(void)
{
    return (LogLevel)atomic_load(&log_level);
}

bool log_level_from_string(const char *text, LogLevel *level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (LogLevel)i;
            return true;
        }
    }
    return false;
}

void log_line(LogLevel level, const char *subject, const char *format, ...)
{
    if (level > log_get_level())
        return;

    char line[LOG_MAX_LINE];
    int n = subject ? snprintf(line, sizeof(line), "qrdp: %s: [%s] ", level_names[level], subject)
                    : snprintf(line, sizeof(line), "qrdp: %s: ", level_names[level]);
    size_t len = n < 0 ? 0 : (size_t)n;
    if (len >= sizeof(line) - 1)
        len = sizeof(line) - 2;

    va_list args;
    va_start(args, format);
    n = vsnprintf(line + len, sizeof(line) - 1 - len, format, args);
    va_end(args);
    if (n > 0)
        len += (size_t)n;
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    line[len++] = '\n';

    /* One write() keeps lines of several threads whole. A log that cannot be written (a closed
     * pipe to virtlogd) must not stop the server. */
    ssize_t ignored = write(STDERR_FILENO, line, len);
    (void)ignored;
}

/* Length of the valid UTF-8 sequence at @p (@left bytes), 0 if there is none. Only multi-byte
 * sequences that cannot be control characters are taken. */
static size_t utf8_letter(const unsigned char *p, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x00a0, 0x0800, 0x10000};
    size_t n = p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;

    if (n == 0 || p[0] > 0xf4 || n > left)
        return 0;
    uint32_t c = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    bool separator = c >= 0x2028 && c <= 0x202e; /* line separators and direction overrides */
    bool surrogate = c >= 0xd800 && c <= 0xdfff;
    return c >= least[n] && c <= 0x10ffff && !separator && !surrogate ? n : 0;
}

const char *log_escape(char *out, size_t size, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t o = 0;

    if (len == SIZE_MAX)
        len = strlen(text);
    for (size_t i = 0; i < len;) {
        size_t n = p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\' ? 1 : utf8_letter(p + i, len - i);
        if (n > 0) {
            if (o + n + 1 > size)
                break;
            memcpy(out + o, p + i, n);
            o += n;
            i += n;
        } else {
            if (o + 4 + 1 > size)
                break;
            snprintf(out + o, 5, "\\x%02x", p[i]);
            o += 4;
            i++;
        }
    }
    if (size > 0)
        out[o] = '\0';
    return out;
}

bool log_limit(LogLimit *limit, uint64_t now_us, uint64_t window_us, uint32_t burst)
{
    if (now_us - limit->window_start >= window_us) {
        limit->window_start = now_us;
        limit->count = 0;
    }
    if (limit->count >= burst)
        return false;
    limit->count++;
    return true;
}
