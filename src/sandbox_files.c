/*
 * Landlock: which files may be opened, and that abstract unix sockets of others are not connected
 * to.
 *
 * Everything that Landlock of this kernel can handle is handled, and given back only below the
 * paths of the list, so what is not named is refused.
 *
 * Landlock's versions add rights. Those that a header of the build machine does not know yet are
 * defined here, and masked by what the running kernel says it has.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "sandbox_priv.h"

#define SUBJECT "sandbox"

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ull << 13) /* version 2 */
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ull << 14) /* version 3 */
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ull << 15) /* version 5 */
#endif

/* As struct landlock_ruleset_attr is since version 6. */
typedef struct Ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
} Ruleset;
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ull << 0) /* version 6 */

#define VERSION_1_RIGHTS (LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1) /* all up to this bit */
#define READ_RIGHTS ((uint64_t)(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR))
#define WRITE_RIGHTS                                                                               \
    (READ_RIGHTS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |                   \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE)
#define DEVICE_RIGHTS (READ_RIGHTS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_IOCTL_DEV)
/* What can be granted on something that is not a folder. */
#define FILE_RIGHTS                                                                                \
    ((uint64_t)(LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |                     \
                LANDLOCK_ACCESS_FS_TRUNCATE | LANDLOCK_ACCESS_FS_IOCTL_DEV))

static uint64_t handled_rights(int version)
{
    uint64_t rights = VERSION_1_RIGHTS;
    if (version >= 2)
        rights |= LANDLOCK_ACCESS_FS_REFER;
    if (version >= 3)
        rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
    if (version >= 5)
        rights |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
    return rights;
}

static uint64_t granted_rights(unsigned rights)
{
    return (rights & SANDBOX_READ ? READ_RIGHTS : 0) |
           (rights & SANDBOX_REMOVE ? LANDLOCK_ACCESS_FS_REMOVE_FILE : 0) |
           (rights & SANDBOX_REMOVE_FOLDERS ? LANDLOCK_ACCESS_FS_REMOVE_DIR : 0) |
           (rights & SANDBOX_WRITE ? WRITE_RIGHTS : 0) |
           (rights & SANDBOX_DEVICES ? DEVICE_RIGHTS : 0) |
           (rights & SANDBOX_RUN ? LANDLOCK_ACCESS_FS_EXECUTE : 0);
}

static void add_path(int ruleset, const SandboxPath *path, uint64_t handled)
{
    struct landlock_path_beneath_attr rule = {0};
    struct stat st;

    rule.parent_fd = open(path->path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0 || fstat(rule.parent_fd, &st) < 0) {
        log_debug(SUBJECT, "%s: %s", path->path, g_strerror(errno));
    } else {
        rule.allowed_access = granted_rights(path->rights) & handled;
        if (!S_ISDIR(st.st_mode))
            rule.allowed_access &= FILE_RIGHTS;
        if (rule.allowed_access &&
            syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
            log_warning(SUBJECT, "%s stays closed: %s", path->path, g_strerror(errno));
    }
    if (rule.parent_fd >= 0)
        close(rule.parent_fd);
}

int sandbox_files_enforce(const GArray *paths)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version <= 0)
        return 0;
    /* Signals have a scope, too, but QEMU, which we signal, was started outside of ours. */
    Ruleset attr = {
        .handled_access_fs = handled_rights((int)version),
        .scoped = version >= 6 ? SCOPE_ABSTRACT_UNIX_SOCKET : 0,
    };
    size_t size = version >= 6 ? sizeof(attr) : sizeof(attr.handled_access_fs);
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0)
        return 0;
    for (guint i = 0; i < paths->len; i++)
        add_path(ruleset, &g_array_index(paths, SandboxPath, i), attr.handled_access_fs);
    bool ok = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    int saved = errno;
    close(ruleset);
    errno = saved;
    return ok ? (int)version : 0;
}
