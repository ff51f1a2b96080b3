/* Preloaded into a program, this writes down what it does to the files below $SHIM_ROOT, and makes calls fail.
 *
 * $SHIM_LOG    where it is written down, appended: one record a call, in the order in which the calls took place.
 *              Writes to standard output are in it too, so that what was said can be held against what was durable.
 * $SHIM_FAIL   CLASS:K:ERROR:HOW fails the K-th call of a class, from 1. CLASS is write, sync, open, rename or other
 *              (truncate, unlink, mkdir); ERROR is EIO or ENOSPC; HOW is once, sticky (and all after it), late (once,
 *              and only after a while, as disks do) or short (a write: half of it is done and said to be, and the next
 *              write fails).
 *
 * $SHIM_STOP    after so many records the process ends as if it were killed, and the log is exact even so. N:SIZE: with
 *              the first write of SIZE bytes after that.
 *
 * All calls but syncs are made under one lock, so that the log has their real order. A sync has two records: what was
 * written before the first is durable at the second. A call that bypasses libc is not seen; the harness finds that out
 * by comparing files. A write through a mapping is not seen either; mapping a file for that is a record that fails it.
 *
 * The layout of a record is in src/shim.rs. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
  LIFE = 1, OPEN, WRITE, TRUNCATE, EXTEND, SYNC_START, SYNC_END, RENAME, LINK, UNLINK, MKDIR, RMDIR, SAID, FAULT,
  UNSUPPORTED, RANGE, COUNT, MODE
};
enum { CREATED = 1, TRUNCATED = 2 };
enum class { WRITES, SYNCS, OPENS, RENAMES, OTHERS, CLASSES };
static const char *const class_names[CLASSES] = {"write", "sync", "open", "rename", "other"};
enum how { ONCE, STICKY, LATE, SHORT };
enum { LATE_US = 50 * 1000 };

struct record {
  uint32_t kind, aux;
  uint64_t ino, number;
  uint32_t first, second;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_len;
static uint64_t syncs, records, stop_at, stop_size;
static uint64_t counts[CLASSES];
static int fail_class = -1, fail_errno;
static uint64_t fail_at;
static enum how fail_how;

/* Inodes below the root, by (device, inode); open addressing. It is looked into without the lock, so it never moves. */
enum { KNOWN = 1 << 16 };
enum state { FREE, NAMED, NAMELESS };
static struct { dev_t dev; ino_t ino; volatile enum state state; } known[KNOWN];
static size_t known_used;

#define REAL(name) ((__typeof__(&name))real_##name)
#define LOAD(name) real_##name = dlsym(RTLD_NEXT, #name)
static void *real_open, *real_open64, *real_openat, *real_openat64, *real_creat, *real_write, *real_pwrite,
  *real_pwrite64, *real_writev, *real_pwritev, *real_pwritev64, *real_ftruncate, *real_ftruncate64, *real_truncate,
  *real_truncate64, *real_fallocate, *real_fallocate64, *real_posix_fallocate, *real_posix_fallocate64, *real_fsync,
  *real_fdatasync, *real_sync_file_range, *real_rename, *real_renameat, *real_renameat2, *real_link, *real_linkat,
  *real_unlink, *real_unlinkat, *real_mkdir, *real_mkdirat, *real_rmdir, *real_mmap, *real_mmap64,
  *real_chmod, *real_copy_file_range, *real_sendfile, *real_sendfile64;

static void die(const char *why) {
  dprintf(2, "shim: %s\n", why);
  _exit(99);
}

static void put_all(const struct iovec *parts, int count) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  /* The log is appended to in one call, so that a process that is killed leaves whole records. */
  if (REAL(writev)(log_fd, parts, count) != (ssize_t)total) die("the log cannot be written");
}

static void note(enum kind kind, uint32_t aux, uint64_t ino, uint64_t number, const void *first, size_t first_len,
                 const void *second, size_t second_len) {
  if (log_fd < 0) return;
  struct record record = {kind, aux, ino, number, (uint32_t)first_len, (uint32_t)second_len};
  struct iovec parts[3] = {{&record, sizeof record}, {(void *)first, first_len}, {(void *)second, second_len}};
  put_all(parts, 3);
  if (++records >= stop_at && stop_at && (!stop_size || (kind == WRITE && first_len == stop_size))) _exit(137);
}

static void unsupported(const char *what) { note(UNSUPPORTED, 0, 0, 0, what, strlen(what), NULL, 0); }

/* The slot of an inode, or the free one where it belongs. */
static size_t slot_of(dev_t dev, ino_t ino) {
  size_t at = (size_t)(ino * 0x9e3779b97f4a7c15u ^ dev) % KNOWN;
  while (known[at].state && (known[at].dev != dev || known[at].ino != ino)) at = (at + 1) % KNOWN;
  return at;
}

/* What is written to a file without a name matters no more, and its number may be used again. Under the lock. */
static void know(const struct stat *st, enum state state) {
  size_t at = slot_of(st->st_dev, st->st_ino);
  if (!known[at].state && 2 * ++known_used > KNOWN) die("too many files");
  known[at].dev = st->st_dev;
  known[at].ino = st->st_ino;
  known[at].state = state;
}

/* The inode of a descriptor, when it has a name below the root; 0 otherwise. */
static ino_t known_fd(int fd) {
  struct stat st;
  if (fd == log_fd || fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) return 0;
  return known[slot_of(st.st_dev, st.st_ino)].state == NAMED ? st.st_ino : 0;
}

/* The path as below the root, into `out`; 0 when it is not there. The root itself is "". */
static int below(int dir, const char *path, char *out) {
  char full[2 * PATH_MAX];
  if (!root_len || !path) return 0;
  if (path[0] == '/') {
    snprintf(full, sizeof full, "%s", path);
  } else {
    char base[PATH_MAX];
    if (dir == AT_FDCWD) {
      if (!getcwd(base, sizeof base)) return 0;
    } else {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
      ssize_t len = readlink(link, base, sizeof base - 1);
      if (len < 0) return 0;
      base[len] = 0;
    }
    snprintf(full, sizeof full, "%s/%s", base, path);
  }
  size_t len = strlen(full);
  while (len > 1 && full[len - 1] == '/') full[--len] = 0;
  if (strncmp(full, root, root_len) || (full[root_len] && full[root_len] != '/')) return 0;
  const char *rest = full + root_len;
  while (*rest == '/') rest++;
  snprintf(out, PATH_MAX, "%s", rest);
  return 1;
}

/* Counts a call, on an inode where one is known, and says with which error it is to fail; 0 for none. Under the lock. */
static int fault(enum class class, ino_t ino) {
  uint64_t number = ++counts[class];
  if ((int)class != fail_class) return 0;
  int fails = fail_how == STICKY ? number >= fail_at : number == fail_at + (fail_how == SHORT);
  if (!fails) return 0;
  if (fail_how == LATE) usleep(LATE_US);
  note(FAULT, class, ino, number, NULL, 0, NULL, 0);
  errno = fail_errno;
  return fail_errno;
}

/* Whether the write just counted is to be cut short. */
static int is_short(ino_t ino) {
  if (fail_class != WRITES || fail_how != SHORT || counts[WRITES] != fail_at) return 0;
  note(FAULT, WRITES, ino, counts[WRITES], NULL, 0, NULL, 0);
  return 1;
}

__attribute__((constructor)) static void begin(void) {
  LOAD(open); LOAD(open64); LOAD(openat); LOAD(openat64); LOAD(creat); LOAD(write); LOAD(pwrite); LOAD(pwrite64);
  LOAD(writev); LOAD(pwritev); LOAD(pwritev64); LOAD(ftruncate); LOAD(ftruncate64); LOAD(truncate); LOAD(truncate64);
  LOAD(fallocate); LOAD(fallocate64); LOAD(posix_fallocate); LOAD(posix_fallocate64); LOAD(fsync); LOAD(fdatasync);
  LOAD(sync_file_range); LOAD(rename); LOAD(renameat); LOAD(renameat2); LOAD(link); LOAD(linkat); LOAD(unlink);
  LOAD(unlinkat); LOAD(mkdir); LOAD(mkdirat); LOAD(rmdir); LOAD(mmap); LOAD(mmap64); LOAD(copy_file_range);
  LOAD(sendfile); LOAD(chmod); LOAD(sendfile64);
  const char *log = getenv("SHIM_LOG"), *where = getenv("SHIM_ROOT"), *fail = getenv("SHIM_FAIL");
  if (!log || !where) return;
  int fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  /* Out of the way of the program, which may count its descriptors. */
  if (fd < 0 || (log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 500)) < 0) die("the log cannot be opened");
  close(fd);
  if (!realpath(where, root)) die("SHIM_ROOT is not there");
  struct stat st;
  if (stat(root, &st)) die("SHIM_ROOT is not there");
  know(&st, NAMED);
  root_len = strlen(root);
  note(LIFE, (uint32_t)getpid(), st.st_ino, 0, NULL, 0, NULL, 0);
  if (getenv("SHIM_STOP")) {
    char *rest;
    stop_at = strtoull(getenv("SHIM_STOP"), &rest, 10);
    if (*rest == ':') stop_size = strtoull(rest + 1, NULL, 10);
  }
  if (fail && *fail) {
    char class[16], error[16], how[16];
    unsigned long long at;
    if (sscanf(fail, "%15[a-z]:%llu:%15[A-Z]:%15[a-z]", class, &at, error, how) != 4) die("SHIM_FAIL cannot be read");
    for (int i = 0; i < CLASSES; i++)
      if (!strcmp(class, class_names[i])) fail_class = i;
    fail_at = at;
    fail_errno = !strcmp(error, "EIO") ? EIO : !strcmp(error, "ENOSPC") ? ENOSPC : 0;
    fail_how = !strcmp(how, "sticky") ? STICKY : !strcmp(how, "short") ? SHORT : !strcmp(how, "late") ? LATE : ONCE;
    if (fail_class < 0 || !fail_errno) die("SHIM_FAIL cannot be read");
  }
}

__attribute__((destructor)) static void end(void) {
  for (int i = 0; i < CLASSES; i++) note(COUNT, (uint32_t)i, 0, counts[i], NULL, 0, NULL, 0);
}

/* Opening. */

static int open_any(int dir, const char *path, int flags, mode_t mode) {
  char rest[PATH_MAX];
  if (log_fd < 0 || !below(dir, path, rest)) return REAL(openat)(dir, path, flags, mode);
  pthread_mutex_lock(&lock);
  int fd = -1;
  if (!fault(OPENS, 0)) {
    struct stat st;
    int was_there = !fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW);
    fd = REAL(openat)(dir, path, flags, mode);
    int saved = errno;
    if (fd >= 0) {
      struct stat now;
      if (fstat(fd, &now)) die("an open file cannot be looked at");
      if (flags & O_TMPFILE & ~O_DIRECTORY) unsupported("O_TMPFILE");
      know(&now, NAMED);
      uint32_t aux = was_there ? 0 : CREATED;
      if (was_there && (flags & O_TRUNC) && S_ISREG(now.st_mode)) aux |= TRUNCATED;
      note(OPEN, aux, now.st_ino, 0, rest, strlen(rest), NULL, 0);
    }
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

#define TAKE_MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { TAKE_MODE(flags) return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { TAKE_MODE(flags) return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { TAKE_MODE(flags) return open_any(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { TAKE_MODE(flags) return open_any(dir, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* Writing. At -1 means: where the file stands. */

static ssize_t write_any(int fd, const struct iovec *parts, int count, off64_t at) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  char *joined = NULL;
  const char *data = count == 1 ? parts[0].iov_base : (joined = malloc(total ? total : 1));
  if (!data && total) die("no memory");
  if (joined) {
    size_t done = 0;
    for (int i = 0; i < count; i++) {
      memcpy(joined + done, parts[i].iov_base, parts[i].iov_len);
      done += parts[i].iov_len;
    }
  }
  pthread_mutex_lock(&lock);
  ssize_t written = -1;
  ino_t ino = fd == 1 ? 0 : known_fd(fd);
  if (fd == 1) {
    note(SAID, 0, 0, 0, data, total, NULL, 0);
    written = REAL(write)(fd, data, total);
  } else if (!ino) {
    written = at < 0 ? REAL(write)(fd, data, total) : REAL(pwrite64)(fd, data, total, at);
  } else if (!fault(WRITES, ino)) {
    if (is_short(ino) && total > 1) total /= 2;
    written = at < 0 ? REAL(write)(fd, data, total) : REAL(pwrite64)(fd, data, total, at);
    int saved = errno;
    if (written > 0) {
      off64_t from = at < 0 ? lseek64(fd, 0, SEEK_CUR) - written : at;
      if (from < 0) die("a file that is written to has no position");
      note(WRITE, 0, ino, (uint64_t)from, data, (size_t)written, NULL, 0);
    }
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  int saved = errno;
  free(joined);
  errno = saved;
  return written;
}

ssize_t write(int fd, const void *data, size_t len) {
  if (log_fd < 0 || (fd != 1 && !known_fd(fd))) return REAL(write)(fd, data, len);
  return write_any(fd, &(struct iovec){(void *)data, len}, 1, -1);
}
ssize_t pwrite(int fd, const void *data, size_t len, off_t at) {
  if (log_fd < 0 || !known_fd(fd)) return REAL(pwrite)(fd, data, len, at);
  return write_any(fd, &(struct iovec){(void *)data, len}, 1, at);
}
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at) {
  if (log_fd < 0 || !known_fd(fd)) return REAL(pwrite64)(fd, data, len, at);
  return write_any(fd, &(struct iovec){(void *)data, len}, 1, at);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (log_fd < 0 || (fd != 1 && !known_fd(fd))) return REAL(writev)(fd, parts, count);
  return write_any(fd, parts, count, -1);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  if (log_fd < 0 || !known_fd(fd)) return REAL(pwritev)(fd, parts, count, at);
  return write_any(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
  if (log_fd < 0 || !known_fd(fd)) return REAL(pwritev64)(fd, parts, count, at);
  return write_any(fd, parts, count, at);
}

static int truncate_any(int fd, off64_t size) {
  pthread_mutex_lock(&lock);
  int done = -1;
  ino_t ino = known_fd(fd);
  if (!ino) {
    done = REAL(ftruncate64)(fd, size);
  } else if (!fault(OTHERS, ino)) {
    done = REAL(ftruncate64)(fd, size);
    int saved = errno;
    if (!done) note(TRUNCATE, 0, ino, (uint64_t)size, NULL, 0, NULL, 0);
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int ftruncate(int fd, off_t size) { return log_fd < 0 ? REAL(ftruncate)(fd, size) : truncate_any(fd, size); }
int ftruncate64(int fd, off64_t size) { return log_fd < 0 ? REAL(ftruncate64)(fd, size) : truncate_any(fd, size); }

static int allocate_any(int fd, int mode, off64_t at, off64_t len) {
  pthread_mutex_lock(&lock);
  int done = -1;
  ino_t ino = known_fd(fd);
  if (!ino || !fault(OTHERS, 0)) {
    done = REAL(fallocate64)(fd, mode, at, len);
    int saved = errno;
    if (!done && ino && !mode) note(EXTEND, 0, ino, (uint64_t)(at + len), NULL, 0, NULL, 0);
    if (!done && ino && mode) unsupported("fallocate with a mode");
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int fallocate(int fd, int mode, off_t at, off_t len) { return allocate_any(fd, mode, at, len); }
int fallocate64(int fd, int mode, off64_t at, off64_t len) { return allocate_any(fd, mode, at, len); }
int posix_fallocate(int fd, off_t at, off_t len) { return allocate_any(fd, 0, at, len) ? errno : 0; }
int posix_fallocate64(int fd, off64_t at, off64_t len) { return allocate_any(fd, 0, at, len) ? errno : 0; }

/* What these do to a file is not written down: whoever uses them is told so by the harness. */
int truncate(const char *path, off_t size) {
  char rest[PATH_MAX];
  if (log_fd >= 0 && below(AT_FDCWD, path, rest)) unsupported("truncate");
  return REAL(truncate)(path, size);
}
int truncate64(const char *path, off64_t size) {
  char rest[PATH_MAX];
  if (log_fd >= 0 && below(AT_FDCWD, path, rest)) unsupported("truncate");
  return REAL(truncate64)(path, size);
}
/* As a kernel without these calls answers: the program then copies with read and write, which is seen. */
static int refuse_to(int fd) {
  if (log_fd < 0 || !known_fd(fd)) return 0;
  errno = ENOSYS;
  return -1;
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t len, unsigned flags) {
  return refuse_to(out) ? -1 : REAL(copy_file_range)(in, from, out, to, len, flags);
}
ssize_t sendfile(int out, int in, off_t *from, size_t len) {
  return refuse_to(out) ? -1 : REAL(sendfile)(out, in, from, len);
}
ssize_t sendfile64(int out, int in, off64_t *from, size_t len) {
  return refuse_to(out) ? -1 : REAL(sendfile64)(out, in, from, len);
}
void *mmap(void *at, size_t len, int prot, int flags, int fd, off_t from) {
  int writes = fd >= 0 && (prot & PROT_WRITE) && !(flags & MAP_PRIVATE);
  if (writes && log_fd >= 0 && known_fd(fd)) unsupported("a mapping for writing");
  return REAL(mmap)(at, len, prot, flags, fd, from);
}
void *mmap64(void *at, size_t len, int prot, int flags, int fd, off64_t from) {
  int writes = fd >= 0 && (prot & PROT_WRITE) && !(flags & MAP_PRIVATE);
  if (writes && log_fd >= 0 && known_fd(fd)) unsupported("a mapping for writing");
  return REAL(mmap64)(at, len, prot, flags, fd, from);
}

/* Syncing. */

static int sync_any(int fd, int data_only) {
  pthread_mutex_lock(&lock);
  ino_t ino = known_fd(fd);
  uint64_t id = ++syncs;
  int fails = ino && fault(SYNCS, ino);
  if (ino && !fails) note(SYNC_START, (uint32_t)data_only, ino, id, NULL, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  if (fails) {
    errno = fail_errno;
    return -1;
  }
  int done = data_only ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
  if (ino && !done) {
    pthread_mutex_lock(&lock);
    note(SYNC_END, (uint32_t)data_only, ino, id, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
  }
  return done;
}
int fsync(int fd) { return log_fd < 0 ? REAL(fsync)(fd) : sync_any(fd, 0); }
int fdatasync(int fd) { return log_fd < 0 ? REAL(fdatasync)(fd) : sync_any(fd, 1); }

/* Not durable: it neither writes metadata nor flushes the disk's cache. */
int sync_file_range(int fd, off64_t at, off64_t len, unsigned flags) {
  if (log_fd < 0 || !known_fd(fd)) return REAL(sync_file_range)(fd, at, len, flags);
  pthread_mutex_lock(&lock);
  int fails = fault(SYNCS, known_fd(fd));
  if (!fails) note(RANGE, 0, known_fd(fd), 0, NULL, 0, NULL, 0);
  pthread_mutex_unlock(&lock);
  if (fails) {
    errno = fail_errno;
    return -1;
  }
  return REAL(sync_file_range)(fd, at, len, flags);
}

/* Names. */

static int rename_any(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  char a[PATH_MAX], b[PATH_MAX];
  int a_below = below(from_dir, from, a), b_below = below(to_dir, to, b);
  if (log_fd < 0 || (!a_below && !b_below)) return REAL(renameat2)(from_dir, from, to_dir, to, flags);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fault(RENAMES, 0)) {
    if (flags || !a_below || !b_below) unsupported("a rename with flags or across the root");
    struct stat st;
    int replaces = !fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW);
    done = REAL(renameat2)(from_dir, from, to_dir, to, flags);
    int saved = errno;
    if (!done) {
      if (replaces && st.st_nlink < 2) know(&st, NAMELESS);
      note(RENAME, 0, 0, 0, a, strlen(a), b, strlen(b));
    }
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int rename(const char *from, const char *to) { return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return rename_any(from_dir, from, to_dir, to, 0); }
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  return rename_any(from_dir, from, to_dir, to, flags);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  char a[PATH_MAX], b[PATH_MAX];
  if (log_fd < 0 || !below(to_dir, to, b)) return REAL(linkat)(from_dir, from, to_dir, to, flags);
  pthread_mutex_lock(&lock);
  if (!below(from_dir, from, a)) unsupported("a link across the root");
  int done = REAL(linkat)(from_dir, from, to_dir, to, flags);
  int saved = errno;
  if (!done) note(LINK, 0, 0, 0, a, strlen(a), b, strlen(b));
  errno = saved;
  pthread_mutex_unlock(&lock);
  return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int remove_any(int dir, const char *path, int flags) {
  char rest[PATH_MAX];
  if (log_fd < 0 || !below(dir, path, rest)) return REAL(unlinkat)(dir, path, flags);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fault(OTHERS, 0)) {
    struct stat st;
    int there = !fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW);
    done = REAL(unlinkat)(dir, path, flags);
    int saved = errno;
    if (!done) {
      if (there && (st.st_nlink < 2 || S_ISDIR(st.st_mode))) know(&st, NAMELESS);
      note(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, rest, strlen(rest), NULL, 0);
    }
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int unlink(const char *path) { return remove_any(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return remove_any(dir, path, flags); }
int rmdir(const char *path) { return remove_any(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *path, mode_t mode) {
  char rest[PATH_MAX];
  if (log_fd < 0 || !below(dir, path, rest)) return REAL(mkdirat)(dir, path, mode);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fault(OTHERS, 0)) {
    done = REAL(mkdirat)(dir, path, mode);
    int saved = errno;
    struct stat st;
    if (!done) {
      if (fstatat(dir, path, &st, 0)) die("a new directory is not there");
      know(&st, NAMED);
      note(MKDIR, st.st_mode & 07777, st.st_ino, 0, rest, strlen(rest), NULL, 0);
    }
    errno = saved;
  }
  pthread_mutex_unlock(&lock);
  return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int chmod(const char *path, mode_t mode) {
  char rest[PATH_MAX];
  if (log_fd < 0 || !below(AT_FDCWD, path, rest)) return REAL(chmod)(path, mode);
  pthread_mutex_lock(&lock);
  int done = REAL(chmod)(path, mode);
  int saved = errno;
  if (!done) note(MODE, mode & 07777, 0, 0, rest, strlen(rest), NULL, 0);
  errno = saved;
  pthread_mutex_unlock(&lock);
  return done;
}
