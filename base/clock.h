/*
 * clock.h - reading the kernel's clocks and writing a time down.
 *
 * Logic never calls these: it takes `now` as a parameter, so that its tests
 * need no sleeping.  The callers at the edge read the clock and pass it in.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Since boot, suspended time included: what a time to live is counted on. */
uint64_t clock_boot_ms(void);

/* Since some moment, suspended time left out: for measuring how long a thing took. */
uint64_t clock_mono_ns(void);

/* Since 1970, UTC, as the system believes it. */
int64_t clock_unix_us(void);

#define CLOCK_RFC3339_SIZE 28 /* "2026-11-24T12:03:26.123456Z" and its NUL */

/* Write `unix_us` as RFC 3339 in UTC with microseconds (section 5.6). Years 1970 to 9999. */
void clock_rfc3339(int64_t unix_us, char out[static CLOCK_RFC3339_SIZE]);

#endif
