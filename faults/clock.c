/* What a process takes for the time, for the fault matrix: LD_PRELOAD makes it read offsets and rates from a file that
   another process writes. CLOCK_REALTIME and CLOCK_BOOTTIME are changed, each by itself. CLOCK_MONOTONIC stays, since
   the kernel counts the waits of locks by it; so does a machine that sleeps, where the clock of the boot goes on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct one { double since, offset, rate; }; /* since: by the real clock; from then on offset + rate * (real - since) */
struct both { struct one wall, boot; };
static volatile struct both *set;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULTS_CLOCK");
  int file = path ? open(path, O_RDONLY) : -1;
  if (file < 0) return;
  void *found = mmap(NULL, sizeof(struct both), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (found != MAP_FAILED) set = found;
}

int clock_gettime(clockid_t id, struct timespec *out) {
  int rc = syscall(SYS_clock_gettime, id, out);
  if (rc || !set || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE && id != CLOCK_BOOTTIME)) return rc;
  volatile struct one *one = id == CLOCK_BOOTTIME ? &set->boot : &set->wall;
  if (one->offset == 0 && one->rate == 1) return rc;
  double real = out->tv_sec + out->tv_nsec / 1e9;
  double told = one->since + one->offset + one->rate * (real - one->since);
  out->tv_sec = (time_t)told;
  out->tv_nsec = (long)((told - (double)out->tv_sec) * 1e9);
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec;
  out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
