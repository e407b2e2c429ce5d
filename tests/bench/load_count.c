#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/load.h"

uint64_t load_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Exact below 64 us, then 32 buckets for each doubling. */
static size_t bucket_of(uint64_t us)
{
	unsigned log2;
	size_t bucket;

	if (us < 64)
		return (size_t)us;
	log2 = 63 - (unsigned)__builtin_clzll(us);
	bucket = 64 + (size_t)(log2 - 6) * 32 + (size_t)(us >> (log2 - 5) & 31);
	return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

static double middle_of(size_t bucket)
{
	size_t log2, part;

	if (bucket < 64)
		return (double)bucket;
	log2 = (bucket - 64) / 32 + 6;
	part = (bucket - 64) % 32;
	return (double)((32 + part) << (log2 - 5)) + (double)((size_t)1 << (log2 - 5)) / 2;
}

void load_count_latency(struct load_counts *counts, uint64_t ns)
{
	counts->latency[bucket_of(ns / 1000)]++;
}

double load_latency_us(const struct load_counts *counts, double share)
{
	uint64_t total = 0, seen = 0;

	for (size_t i = 0; i < LATENCY_BUCKETS; i++)
		total += counts->latency[i];
	for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
		seen += counts->latency[i];
		if (seen > 0 && (double)seen >= share * (double)total)
			return middle_of(i);
	}
	return 0;
}

/* Fields 14 and 15 of /proc/PID/stat, behind the name in parentheses. */
static double cpu_of(long pid)
{
	char path[64], text[1024];
	unsigned long ticks = 0;
	size_t len;
	FILE *file;
	char *at;

	(void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	len = fread(text, 1, sizeof(text) - 1, file);
	(void)fclose(file);
	text[len] = '\0';
	at = strrchr(text, ')');
	for (int field = 2; at && field <= 15; field++) {
		if (field >= 14)
			ticks += strtoul(at, NULL, 10);
		at = strchr(at + 1, ' ');
	}
	return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

double load_cpu_of(const char *pids)
{
	double total = 0;

	while (pids && *pids) {
		char *end;
		long pid = strtol(pids, &end, 10);

		if (end == pids)
			break;
		total += cpu_of(pid);
		pids = *end == ',' ? end + 1 : end;
	}
	return total;
}
