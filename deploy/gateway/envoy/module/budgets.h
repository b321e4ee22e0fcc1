/* Token buckets that outlive the process: what is spent stays spent. */
#ifndef REVERSE_SIGMOID_BUDGETS_H
#define REVERSE_SIGMOID_BUDGETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seen from outside: the tests count with them, by clocks of their own. */
#define BUDGETS_API __attribute__((visibility("default")))
#define NAME_SIZE 128
#define ERROR_SIZE 512

/* A bucket of so many tokens that refills evenly over a period. */
struct wanted {
  char name[NAME_SIZE];
  int64_t tokens;
  int64_t period_s;
};

/* Now, by the clock that nobody can set and by the one that goes on without power. */
struct moment {
  int64_t since_boot_ns;
  int64_t since_epoch_ns;
  char boot[40];  /* tells one boot of the machine from another */
};

struct verdict {
  bool granted;
  int64_t remaining;  /* tokens */
  int64_t wait_s;     /* until as many tokens are there again, 0 if they are */
};

struct budgets;

struct moment moment_now(void);

/* Returns as many buckets as wanted, in that order, or NULL with an error that names the file.
 *
 * A bucket that the file knows keeps what was spent, whatever its size and period are now; others
 * are full. The file belongs to one process until it ends. Without a file (NULL) they live in
 * memory. ``only_look`` reads the file, writes nothing and returns buckets in memory. */
BUDGETS_API struct budgets *budgets_open(const char *path, const struct wanted *wanted,
                                         size_t count, const struct moment *now, bool only_look,
                                         char *error);
BUDGETS_API void budgets_close(struct budgets *);

/* Takes tokens from a bucket, or none if there are not so many. Safe in many threads at once. */
BUDGETS_API struct verdict budgets_take(struct budgets *, size_t bucket, int64_t tokens,
                            const struct moment *now);

#endif
