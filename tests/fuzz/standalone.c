/*
 * Runs a fuzz target without libFuzzer: every file named on the command line (or in a folder named
 * there) is replayed as it is, then every truncation, every bit flip and a fixed number of random
 * mutations of it. The cases are the same in every run, so a failure can be had again at will.
 *
 *      fuzz-urbdrc-pdu tests/fuzz/corpus/urbdrc-pdu
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "mutate.h"

#define INPUT_BYTES (1u << 20)
#define RANDOM_CASES 4000u
/* Files over this are not tried bit by bit: a quadratic amount of work buys little. */
#define FLIPPED_BYTES 2048u
/* A slow target stops mutating one file after this long and says so. */
#define FILE_BUDGET_S 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Replay {
    unsigned long cases;
    unsigned long skipped;
    time_t until;
} Replay;

static void run_case(uint8_t *data, size_t len, void *user)
{
    Replay *replay = user;

    if (time(NULL) > replay->until) {
        replay->skipped++;
        return;
    }
    LLVMFuzzerTestOneInput(data, len);
    replay->cases++;
}

static int replay_file(const char *path, Replay *replay)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_BYTES);

    if (!f || !data) {
        fprintf(stderr, "cannot read %s: %s\n", path, strerror(errno));
        if (f)
            fclose(f);
        free(data);
        return 1;
    }
    size_t len = fread(data, 1, INPUT_BYTES, f);
    fclose(f);

    uint32_t seed = 2166136261u; /* FNV-1a, so that each file gets mutations of its own */
    for (size_t i = 0; i < len; i++)
        seed = (seed ^ data[i]) * 16777619u;

    replay->until = time(NULL) + FILE_BUDGET_S;
    mutate_none(data, len, run_case, replay);
    mutate_truncations(data, len, run_case, replay);
    if (len <= FLIPPED_BYTES)
        mutate_bit_flips(data, len, run_case, replay);
    mutate_random(data, len, seed, RANDOM_CASES, run_case, replay);
    free(data);
    return 0;
}

static int replay_folder(const char *path, DIR *dir, unsigned *files, Replay *replay)
{
    struct dirent *entry;
    int failed = 0;

    while ((entry = readdir(dir))) {
        char name[4096];
        struct stat st;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (stat(name, &st) != 0 || !S_ISREG(st.st_mode))
            continue;
        failed |= replay_file(name, replay);
        (*files)++;
    }
    return failed;
}

int main(int argc, char **argv)
{
    Replay replay = {0};
    unsigned files = 0;
    int failed = 0;

    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);

        if (dir) {
            failed |= replay_folder(argv[i], dir, &files, &replay);
            closedir(dir);
        } else {
            failed |= replay_file(argv[i], &replay);
            files++;
        }
    }
    if (files == 0) {
        fprintf(stderr, "usage: %s CORPUS-FOLDER|FILE...\n", argv[0]);
        return 2;
    }
    printf("%lu cases from %u files", replay.cases, files);
    if (replay.skipped > 0)
        printf(", %lu left out for time", replay.skipped);
    printf("\n");
    return failed;
}
