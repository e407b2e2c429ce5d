/*
 * poisson.h - sampling by bytes: which allocations are taken, and what one that was taken stands for.
 *
 * Every byte that is allocated begins a sample with probability 1 / rate, so the distance from one
 * to the next is exponential, and an object of `size` bytes is taken with probability
 * 1 - exp(-size / rate), wherever it falls.  One over that is what it stands for: counts multiplied
 * by it are right on average for each size by itself (as Go's scaleHeapSample).  No libm: its
 * functions are not ours to call from a hook.
 */
#ifndef SAMPLER_POISSON_H
#define SAMPLER_POISSON_H

#include <stdint.h>

/* Natural logarithm of 0 < x < infinity, to 15 digits. */
double poisson_log(double x);

/* 1 - exp(-x) of x >= 0, to 14 digits also where it is near 0. */
double poisson_share(double x);

/* Bytes to the next sample, from a random number; on average `rate`, which is at least 2. */
int64_t poisson_distance(uint64_t random, uint64_t rate);

/* How many objects one sampled object of this size stands for; 1 when the rate is 0 or 1. */
double poisson_scale(uint64_t size, uint64_t rate);

#endif
