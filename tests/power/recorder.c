/* Records what a process does to the files below one folder, for tests/power/disk.py. Loaded by LD_PRELOAD.
 *
 * SIGKILL never loses what the kernel holds, so it says nothing of fsync. This keeps every write, truncation,
 * sync, creation and removal in the order in which the kernel took them, each with the monotonic time, and at the
 * start of a process the content of each file. From that a test builds what a power cut could have left.
 *
 * POWER_FOLDER  the folder
 * POWER_LOG     where the records go; one process at a time
 *
 * A record: operation (1 byte), length of the path (2), offset (8), length of the data (8), time in ns (8), all
 * little-endian, then path and data. A write is recorded after it is done: a process that is killed in between
 * leaves a write that is on no record, and the next process records the contents that it finds.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *folder;
static int log_file = -1;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_ours(const char *path) {
  size_t length = folder ? strlen(folder) : 0;
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]) &&
         !(strlen(path) > 4 && !strcmp(path + strlen(path) - 4, "-shm")); /* it is made anew, and never synced */
}

static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, PATH_MAX - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_ours(path);
}

static void record(char operation, const char *path, uint64_t offset, const void *data, uint64_t length) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  uint16_t path_length = (uint16_t)strlen(path);
  char head[27];
  head[0] = operation;
  memcpy(head + 1, &path_length, 2);
  memcpy(head + 3, &offset, 8);
  memcpy(head + 11, &length, 8);
  memcpy(head + 19, &ns, 8);
  struct iovec parts[3] = {{head, sizeof head}, {(void *)path, path_length}, {(void *)data, length}};
  if (writev(log_file, parts, 3) != (ssize_t)(sizeof head + path_length + length)) abort();
}

__attribute__((constructor)) static void begin(void) {
  folder = getenv("POWER_FOLDER");
  const char *where = getenv("POWER_LOG");
  if (!folder || !where) return;
  log_file = REAL(open)(where, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  DIR *files = opendir(folder);
  struct dirent *entry;
  while (files && (entry = readdir(files))) {
    char path[PATH_MAX];
    struct stat found;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (!is_ours(path) || stat(path, &found) || !S_ISREG(found.st_mode)) continue;
    char *content = malloc((size_t)found.st_size + 1);
    int fd = REAL(open)(path, O_RDONLY);
    ssize_t length = pread(fd, content, (size_t)found.st_size, 0);
    close(fd); /* before SQLite has a lock on it, which closing would let go */
    record('F', path, 0, content, length < 0 ? 0 : (uint64_t)length);
    free(content);
  }
  if (files) closedir(files);
}

#define RECORDED(fd, call, condition, operation, offset, data, length) \
  char path[PATH_MAX];                                                  \
  if (log_file < 0 || !path_of(fd, path)) return call;                  \
  pthread_mutex_lock(&one_at_a_time);                                   \
  __typeof__(call) result = call;                                       \
  if (condition) record(operation, path, offset, data, length);         \
  pthread_mutex_unlock(&one_at_a_time);                                 \
  return result;

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
  RECORDED(fd, REAL(pwrite)(fd, data, length, offset), result > 0, 'W', (uint64_t)offset, data, (uint64_t)result)
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
  RECORDED(fd, REAL(pwrite64)(fd, data, length, offset), result > 0, 'W', (uint64_t)offset, data, (uint64_t)result)
}

ssize_t write(int fd, const void *data, size_t length) {
  RECORDED(fd, REAL(write)(fd, data, length), result > 0, 'W',
           (uint64_t)(lseek(fd, 0, SEEK_CUR) - result), data, (uint64_t)result)
}

int ftruncate(int fd, off_t length) { RECORDED(fd, REAL(ftruncate)(fd, length), !result, 'T', (uint64_t)length, "", 0) }

int ftruncate64(int fd, off64_t length) {
  RECORDED(fd, REAL(ftruncate64)(fd, length), !result, 'T', (uint64_t)length, "", 0)
}

int fsync(int fd) { RECORDED(fd, REAL(fsync)(fd), !result, 'S', 0, "", 0) }

int fdatasync(int fd) { RECORDED(fd, REAL(fdatasync)(fd), !result, 'S', 0, "", 0) }

int unlink(const char *path) {
  if (log_file < 0 || !is_ours(path)) return REAL(unlink)(path);
  pthread_mutex_lock(&one_at_a_time);
  int result = REAL(unlink)(path);
  if (!result) record('U', path, 0, "", 0);
  pthread_mutex_unlock(&one_at_a_time);
  return result;
}

#define OPENED(name)                                                           \
  int name(const char *path, int flags, ...) {                                 \
    va_list more;                                                              \
    va_start(more, flags);                                                     \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;    \
    va_end(more);                                                              \
    if (log_file < 0 || !(flags & O_CREAT) || !is_ours(path)) return REAL(name)(path, flags, mode); \
    pthread_mutex_lock(&one_at_a_time);                                        \
    struct stat found;                                                         \
    int is_new = stat(path, &found);                                           \
    int result = REAL(name)(path, flags, mode);                                \
    if (result >= 0 && is_new) record('C', path, 0, "", 0);                    \
    pthread_mutex_unlock(&one_at_a_time);                                      \
    return result;                                                             \
  }

OPENED(open)
OPENED(open64)
