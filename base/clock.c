#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#define YEAR_9999_US INT64_C(253402300799999999)

static uint64_t read_ns(clockid_t id)
{
	struct timespec ts = { 0 };

	(void)clock_gettime(id, &ts); /* these clocks always exist on Linux */
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t clock_boot_ms(void)
{
	return read_ns(CLOCK_BOOTTIME) / 1000000;
}

uint64_t clock_mono_ns(void)
{
	return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_unix_us(void)
{
	return (int64_t)(read_ns(CLOCK_REALTIME) / 1000);
}

void clock_rfc3339(int64_t unix_us, char out[static CLOCK_RFC3339_SIZE])
{
	struct tm tm = { 0 };
	time_t seconds;

	if (unix_us < 0)
		unix_us = 0;
	if (unix_us > YEAR_9999_US)
		unix_us = YEAR_9999_US;
	seconds = unix_us / 1000000;
	(void)gmtime_r(&seconds, &tm);
	(void)snprintf(out, CLOCK_RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ",
		(unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
		(unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100,
		(unsigned)tm.tm_min % 100, (unsigned)tm.tm_sec % 100,
		(unsigned)(unix_us % 1000000));
}
