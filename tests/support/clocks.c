/* Shifts what a program sees of CLOCK_REALTIME and CLOCK_BOOTTIME by the seconds in a file of two 64 bit numbers. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

__attribute__((constructor)) static void begin(void)
{
	int file = open(getenv("CLOCKS"), O_RDONLY | O_CLOEXEC);
	void *found = mmap(NULL, 2 * sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
	if (found == MAP_FAILED)
		abort();
	shift = found;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int failed = syscall(SYS_clock_gettime, clock, now) != 0;
	if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += shift[0];
	if (!failed && shift && clock == CLOCK_BOOTTIME)
		now->tv_sec += shift[1];
	return failed ? -1 : 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec found;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return -1;
	now->tv_sec = found.tv_sec;
	now->tv_usec = found.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *now)
{
	struct timespec found;
	if (clock_gettime(CLOCK_REALTIME, &found) != 0)
		return -1;
	if (now)
		*now = found.tv_sec;
	return found.tv_sec;
}
