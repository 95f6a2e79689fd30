/*
 * Keys.
 *
 * A QEMU key number ("qnum") is the XT set 1 scancode with 0x80 for the extended keys, and an RDP
 * scancode is the same with a flag, so most of that mapping is one addition (rdp-server.md 11).
 *
 * Characters go the other way: libxkbcommon compiles the guest's layout, and each key is asked what
 * it types at each level. Only levels reached with Shift and AltGr count, since those two keys can
 * be pressed whatever the guest's state is; plain keys win over shifted ones, shifted ones over
 * AltGr. Keypad keys are left out: what they type depends on Num Lock.
 */
#include "input.h"

#include <gio/gio.h>
#include <string.h>
#include <xkbcommon/xkbcommon.h>

#define XKB_EVDEV_OFFSET 8u

struct InputMap {
    GHashTable *strokes; /* character -> packed stroke */
};

enum { PACK_SHIFT = 0x100, PACK_ALTGR = 0x200, PACK_LETTER = 0x400, PACK_SET = 0x800 };

uint8_t input_qnum(uint8_t code, bool extended)
{
    if (code == 0 || code >= 0x80)
        return 0;
    return extended ? code | 0x80 : code;
}

/* evdev codes up to 88 are set 1 scancodes; of the rest only those that type something. */
static uint8_t qnum_of_evdev(uint32_t code)
{
    switch (code) {
    case 89: /* KEY_RO */
        return 0x73;
    case 124: /* KEY_YEN */
        return 0x7d;
    case 55: /* KEY_KPASTERISK */
        return 0;
    default:
        return (code >= 1 && code <= 57) || code == 86 ? (uint8_t)code : 0;
    }
}

typedef struct Masks {
    xkb_mod_mask_t shift, level3, others;
} Masks;

/* Whether @mask is a mix of Shift and AltGr; which one as PACK_* bits. */
static bool reachable(const Masks *m, xkb_mod_mask_t mask, guint *pack)
{
    *pack = 0;
    if (mask & m->shift)
        *pack |= PACK_SHIFT;
    if (m->level3 && (mask & m->level3))
        *pack |= PACK_ALTGR;
    return (mask & ~(m->shift | m->level3)) == 0;
}

static void add_level(InputMap *map, struct xkb_keymap *keymap, xkb_keycode_t key,
                      xkb_level_index_t level, const Masks *masks)
{
    const xkb_keysym_t *syms;
    xkb_mod_mask_t ways[16];
    guint best = G_MAXUINT;

    if (xkb_keymap_key_get_syms_by_level(keymap, key, 0, level, &syms) != 1)
        return;
    uint32_t character = xkb_keysym_to_utf32(syms[0]);
    if (character == 0)
        return;
    size_t n = xkb_keymap_key_get_mods_for_level(keymap, key, 0, level, ways, G_N_ELEMENTS(ways));
    for (size_t i = 0; i < n; i++) {
        guint pack;
        if (reachable(masks, ways[i], &pack))
            best = MIN(best, pack);
    }
    if (best == G_MAXUINT)
        return;
    guint packed = PACK_SET | best | qnum_of_evdev(key - XKB_EVDEV_OFFSET);
    if (g_unichar_isalpha(character) &&
        g_unichar_toupper(character) != g_unichar_tolower(character) && !(best & PACK_ALTGR))
        packed |= PACK_LETTER;

    gpointer k = GUINT_TO_POINTER(character);
    guint old = GPOINTER_TO_UINT(g_hash_table_lookup(map->strokes, k));
    guint modifiers = PACK_SHIFT | PACK_ALTGR;
    if (!old || (packed & modifiers) < (old & modifiers))
        g_hash_table_insert(map->strokes, k, GUINT_TO_POINTER(packed));
}

static void add_keymap(InputMap *map, struct xkb_keymap *keymap)
{
    Masks masks = {0};
    xkb_mod_index_t shift = xkb_keymap_mod_get_index(keymap, XKB_MOD_NAME_SHIFT);
    xkb_mod_index_t mod5 = xkb_keymap_mod_get_index(keymap, "Mod5");

    masks.shift = shift == XKB_MOD_INVALID ? 0 : 1u << shift;
    masks.level3 = mod5 == XKB_MOD_INVALID ? 0 : 1u << mod5;
    for (xkb_keycode_t key = xkb_keymap_min_keycode(keymap);
         key <= xkb_keymap_max_keycode(keymap) && key < 256; key++) {
        if (key < XKB_EVDEV_OFFSET || qnum_of_evdev(key - XKB_EVDEV_OFFSET) == 0 ||
            xkb_keymap_num_layouts_for_key(keymap, key) == 0)
            continue;
        xkb_level_index_t levels = xkb_keymap_num_levels_for_key(keymap, key, 0);
        for (xkb_level_index_t level = 0; level < levels && level < 8; level++)
            add_level(map, keymap, key, level, &masks);
    }
}

static struct xkb_keymap *compile(const char *layout)
{
    const char *open = strchr(layout, '(');
    size_t len = open ? (size_t)(open - layout) : strlen(layout);
    char *name = g_strndup(layout, len);
    char *variant = open ? g_strndup(open + 1, strcspn(open + 1, ")")) : NULL;
    struct xkb_rule_names names = {
        .rules = "evdev", .model = "pc105", .layout = name, .variant = variant, .options = ""};
    struct xkb_context *context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    struct xkb_keymap *keymap = NULL;

    if (context) {
        xkb_context_set_log_level(context, XKB_LOG_LEVEL_CRITICAL);
        keymap = xkb_keymap_new_from_names(context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
        xkb_context_unref(context);
    }
    g_free(name);
    g_free(variant);
    return keymap;
}

InputMap *input_map_new(const char *layout, GError **error)
{
    struct xkb_keymap *keymap = compile(layout);
    if (!keymap) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "keyboard layout \"%s\" is not known: use an xkb name such as us, de or "
                    "fr(oss), and install xkb-data",
                    layout);
        return NULL;
    }
    InputMap *map = g_new0(InputMap, 1);
    map->strokes = g_hash_table_new(NULL, NULL);
    add_keymap(map, keymap);
    xkb_keymap_unref(keymap);
    /* Clients send either for the Enter key. */
    gpointer enter = g_hash_table_lookup(map->strokes, GUINT_TO_POINTER('\r'));
    if (enter)
        g_hash_table_insert(map->strokes, GUINT_TO_POINTER('\n'), enter);
    return map;
}

void input_map_free(InputMap *map)
{
    if (!map)
        return;
    g_hash_table_unref(map->strokes);
    g_free(map);
}

bool input_map_find(const InputMap *map, uint32_t character, InputStroke *stroke)
{
    guint packed = GPOINTER_TO_UINT(g_hash_table_lookup(map->strokes, GUINT_TO_POINTER(character)));
    if (!packed)
        return false;
    stroke->qnum = (uint8_t)packed;
    stroke->shift = packed & PACK_SHIFT;
    stroke->altgr = packed & PACK_ALTGR;
    stroke->letter = packed & PACK_LETTER;
    return true;
}
