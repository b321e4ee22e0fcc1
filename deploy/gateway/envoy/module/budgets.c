/* A file of token buckets, mapped into memory: the kernel keeps it when the process is killed.
 *
 * A bucket is one number: the time at which it will be full again. Taking tokens moves that time
 * on, by one compare-and-swap; refilling is the passing of time. Times count from the machine's
 * boot, so setting the clock changes nothing. After another boot the wall clock says how long it
 * was off, and a clock that went back is taken for no time at all.
 *
 * At every start the file is written anew beside the old one and put in its place: no crash
 * leaves half a file. Whatever else does not look as it was written is damage, and refused.
 */
#define _GNU_SOURCE
#include "budgets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define MAGIC "RSBUDGET"
#define VERSION 1
#define SLACK_NS (5 * NS)  /* that seen_boot_ns may be behind a bucket */

struct slot {
  char name[NAME_SIZE];
  int64_t tokens, period_s;
  _Atomic int64_t full_at_ns;
  uint64_t check;  /* of all above but full_at_ns */
};

struct head {
  char magic[8];
  uint32_t version, slots;
  char boot[40];
  uint64_t check;  /* of all above */
  _Atomic int64_t seen_boot_ns, seen_epoch_ns;  /* when a bucket was last asked */
};

struct budgets {
  int lock;  /* an open file as long as we count; -1 in memory */
  int file;  /* what is mapped: whoever started us reads it if its name is taken away; -1 */
  struct head *head;
  size_t bytes;
  struct slot *slots;
  size_t *index;  /* bucket to slot */
};

/* Says what is wrong with which file. */
static void *fail(char *error, const char *path, const char *format, ...) {
  char what[ERROR_SIZE / 2];
  va_list values;
  va_start(values, format);
  vsnprintf(what, sizeof what, format, values);
  va_end(values);
  snprintf(error, ERROR_SIZE, "%s: %s", path, what);
  return NULL;
}

/* FNV-1a, which finds damage; nobody forges a file that only its owner can write. */
static uint64_t sum(const void *data, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const unsigned char *byte = data; size--; byte++) hash = (hash ^ *byte) * 0x100000001b3u;
  return hash;
}

static uint64_t slot_check(const struct slot *slot) {
  return sum(slot, offsetof(struct slot, full_at_ns));
}

/* Returns whether a number can be a time: of a century, so that sums of times stay numbers. */
static bool is_time(int64_t ns) { return ns >= 0 && ns <= INT64_MAX / 2; }

static size_t size_of(size_t slots) {
  return sizeof(struct head) + slots * sizeof(struct slot);
}

static int64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * NS + now.tv_nsec;
}

struct moment moment_now(void) {
  static char boot[40];  /* read once: filled before threads start, at the first configuration */
  if (!boot[0]) {
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, boot, 36);
    if (got != 36) memcpy(boot, "unknown", 8);
    if (file >= 0) close(file);
  }
  struct moment now = {clock_ns(CLOCK_BOOTTIME), clock_ns(CLOCK_REALTIME), {0}};
  memcpy(now.boot, boot, sizeof boot);
  return now;
}

/* Returns what is left of a time until full, at this moment. */
static int64_t left_ns(const struct head *head, int64_t full_at_ns, const struct moment *now) {
  int64_t passed = now->since_boot_ns - head->seen_boot_ns;
  if (strcmp(head->boot, now->boot) || passed < 0)
    passed = now->since_epoch_ns - head->seen_epoch_ns;
  int64_t left = full_at_ns - head->seen_boot_ns - (passed > 0 ? passed : 0);
  return left > 0 ? left : 0;
}

/* Returns the same number of spent tokens as a time until a bucket of another size is full. */
static int64_t as_now(const struct slot *was, const struct wanted *is, int64_t left) {
  if (was->tokens != is->tokens || was->period_s != is->period_s) {
    long double spent = (long double)left * was->tokens / (was->period_s * NS);
    left = (int64_t)(spent * (is->period_s * NS) / is->tokens + 0.5L);
  }
  return left < is->period_s * NS ? left : is->period_s * NS;
}

/* Returns the file's content if it is as it was written; NULL and an error if not. */
static struct head *read_whole(int file, const char *path, char *error) {
  off_t bytes = lseek(file, 0, SEEK_END);
  static const char damaged[] =
      "is damaged (%s); what was spent is lost. Put a copy back, or remove it to begin all "
      "budgets anew";
  if (bytes < (off_t)sizeof(struct head)) return fail(error, path, damaged, "too short");
  struct head *head = malloc(bytes);
  if (!head || pread(file, head, bytes, 0) != bytes) {
    free(head);
    return fail(error, path, "cannot be read: %s", strerror(errno));
  }
  const char *wrong = NULL;
  if (memcmp(head->magic, MAGIC, 8) || head->check != sum(head, offsetof(struct head, check)))
    wrong = "its beginning is not ours";
  else if (head->version != VERSION)
    wrong = "of another version";
  else if ((size_t)bytes != size_of(head->slots))
    wrong = "its length is not what it says";
  else if (!is_time(head->seen_boot_ns) || !is_time(head->seen_epoch_ns))
    wrong = "its time is none";
  const struct slot *slots = (const struct slot *)(head + 1);
  for (size_t i = 0; !wrong && i < head->slots; i++) {
    int64_t ahead = (int64_t)((uint64_t)slots[i].full_at_ns - (uint64_t)head->seen_boot_ns);
    if (slots[i].check != slot_check(&slots[i])) wrong = "a budget is not as it was written";
    else if (!is_time(slots[i].full_at_ns) || ahead > slots[i].period_s * NS + SLACK_NS)
      wrong = "a budget has spent more than it had";
  }
  if (!wrong) return head;
  free(head);
  return fail(error, path, damaged, wrong);
}

/* Returns the slot of that name, or how many there are. */
static size_t find(const struct slot *slots, size_t count, const char *name) {
  size_t i = 0;
  while (i < count && strcmp(slots[i].name, name)) i++;
  return i;
}

/* Fills the mapped file: every slot that was there before, then the new ones. */
static void fill(struct budgets *all, const struct head *old, const struct wanted *wanted,
                 size_t count, const struct moment *now) {
  const struct slot *were = old ? (const struct slot *)(old + 1) : NULL;
  size_t known = old ? old->slots : 0, used = known;
  for (size_t i = 0; i < known; i++) {
    struct slot *slot = memcpy(&all->slots[i], &were[i], sizeof *slot);
    slot->full_at_ns = now->since_boot_ns + left_ns(old, were[i].full_at_ns, now);
  }
  for (size_t i = 0; i < count; i++) {
    size_t at = find(all->slots, used, wanted[i].name);
    struct slot *slot = &all->slots[at];
    int64_t left = at < used ? as_now(slot, &wanted[i], slot->full_at_ns - now->since_boot_ns) : 0;
    used += at == used;
    memset(slot, 0, sizeof *slot);
    strcpy(slot->name, wanted[i].name);
    slot->tokens = wanted[i].tokens;
    slot->period_s = wanted[i].period_s;
    slot->full_at_ns = now->since_boot_ns + left;
    slot->check = slot_check(slot);
    all->index[i] = at;
  }
  struct head *head = all->head;
  memcpy(head->magic, MAGIC, 8);
  head->version = VERSION;
  head->slots = (uint32_t)used;
  memcpy(head->boot, now->boot, sizeof head->boot);
  head->check = sum(head, offsetof(struct head, check));
  head->seen_boot_ns = now->since_boot_ns;
  head->seen_epoch_ns = now->since_epoch_ns;
}

static size_t slots_needed(const struct head *old, const struct wanted *wanted, size_t count) {
  size_t known = old ? old->slots : 0, needed = known;
  for (size_t i = 0; i < count; i++)
    needed += find((const struct slot *)(old + 1), known, wanted[i].name) == known;
  return needed;
}

static const char elsewhere[] =
    "cannot be written: %s; say another place (budgets_file, --budgets-folder)";

/* Returns an open lock beside the file, or -1 with an error: only one process counts in it. */
static int lock(const char *path, char *error) {
  char beside[4096];
  snprintf(beside, sizeof beside, "%s.lock", path);
  int file = open(beside, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) {
    fail(error, beside, elsewhere, strerror(errno));
  } else if (flock(file, LOCK_EX | LOCK_NB)) {
    int reason = errno;
    close(file);
    file = -1;
    fail(error, path, reason == EWOULDBLOCK ? "another gateway counts in it; give each its own"
                                            : "cannot be locked: %s", strerror(reason));
  }
  return file;
}

/* Returns the old file's content; NULL without an error if there is no file. */
static struct head *read_old(const char *path, char *error) {
  error[0] = 0;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return errno == ENOENT ? NULL : fail(error, path, "cannot be read: %s", strerror(errno));
  struct head *old = read_whole(file, path, error);
  close(file);
  return old;
}

/* Maps the buckets: in a new file of that name, or in memory. Returns true or an error. */
static bool map(struct budgets *all, const char *path, char *error) {
  int file = -1, flags = MAP_SHARED | MAP_ANONYMOUS, reason = 0;
  if (path) {
    flags = MAP_SHARED;
    file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    // Every block is taken now: a full disk must not kill the gateway at a later request.
    reason = file < 0 ? errno : posix_fallocate(file, 0, (off_t)all->bytes);
  }
  void *memory = reason ? MAP_FAILED : mmap(NULL, all->bytes, PROT_READ | PROT_WRITE, flags, file,
                                            0);
  if (!reason && memory == MAP_FAILED) reason = errno;
  all->file = file;  // closed with all else
  if (reason) {
    fail(error, path ? path : "budgets in memory", "cannot be written: %s", strerror(reason));
    return false;
  }
  all->head = memory;
  all->slots = (struct slot *)(all->head + 1);
  return true;
}

/* Returns whether a file of that name could be replaced, or an error. */
static bool replaceable(const char *path, char *error) {
  char folder[4096];
  snprintf(folder, sizeof folder, "%s", path);
  char *end = strrchr(folder, '/');
  if (end) *end = 0;
  if (!access(end ? (end == folder ? "/" : folder) : ".", W_OK | X_OK)) return true;
  fail(error, path, elsewhere, strerror(errno));
  return false;
}

struct budgets *budgets_open(const char *path, const struct wanted *wanted, size_t count,
                             const struct moment *now, bool only_look, char *error) {
  struct budgets *all = calloc(1, sizeof *all);
  struct head *old = NULL;
  char beside[4096];
  const char *to = path && !only_look ? beside : NULL;
  snprintf(beside, sizeof beside, "%s.new", path ? path : "");
  error[0] = 0;
  all->lock = all->file = -1;
  all->index = calloc(count + 1, sizeof *all->index);
  if (path) {
    if (only_look ? !replaceable(path, error) : (all->lock = lock(path, error)) < 0) goto failed;
    old = read_old(path, error);
    if (error[0]) goto failed;
  }
  all->bytes = size_of(slots_needed(old, wanted, count));
  if (!map(all, to, error)) goto failed;
  fill(all, old, wanted, count, now);
  if (to && (msync(all->head, all->bytes, MS_SYNC) || rename(to, path))) {
    fail(error, path, "cannot be written: %s", strerror(errno));
    goto failed;
  }
  free(old);
  return all;
failed:
  free(old);
  budgets_close(all);
  return NULL;
}

void budgets_close(struct budgets *all) {
  if (!all) return;
  if (all->head) munmap(all->head, all->bytes);
  if (all->file >= 0) close(all->file);
  if (all->lock >= 0) close(all->lock);
  free(all->index);
  free(all);
}

struct verdict budgets_take(struct budgets *all, size_t bucket, int64_t tokens,
                            const struct moment *now) {
  struct slot *slot = &all->slots[all->index[bucket]];
  struct head *head = all->head;
  const int64_t period_ns = slot->period_s * NS, at = now->since_boot_ns;
  const int64_t price_ns = (int64_t)((__int128)period_ns * tokens / slot->tokens);
  if (at - atomic_load_explicit(&head->seen_boot_ns, memory_order_relaxed) > NS) {
    // In this order: a power cut between the two makes the time without power look shorter.
    atomic_store(&head->seen_epoch_ns, now->since_epoch_ns);
    atomic_store(&head->seen_boot_ns, at);
  }
  int64_t full_at = atomic_load_explicit(&slot->full_at_ns, memory_order_relaxed), left, late;
  do {
    left = full_at > at ? full_at - at : 0;
    late = left + price_ns - period_ns;
  } while (late <= 0 && !atomic_compare_exchange_weak(&slot->full_at_ns, &full_at,
                                                      at + left + price_ns));
  struct verdict verdict = {late <= 0, 0, 0};
  if (verdict.granted) left += price_ns, late += price_ns;
  verdict.remaining = (int64_t)((__int128)(period_ns - left) * slot->tokens / period_ns);
  verdict.wait_s = late > 0 ? (late + NS - 1) / NS : 0;
  return verdict;
}
