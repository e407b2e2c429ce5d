/*
 * shares.h - four functions that are called for 50, 30, 15 and 5 % of equal pieces of work, at
 * random, so that no timer falls into step with them.
 */
#ifndef ACCURACY_SHARES_H
#define ACCURACY_SHARES_H

#include <stdint.h>

typedef uint64_t piece_of_work(uint64_t seed);

/* The same work under four names; other numbers, or the compiler would make them one. */
#define SHARE(name, number, piece)                                    \
	__attribute__((noinline)) uint64_t name(uint64_t seed);       \
	__attribute__((noinline)) uint64_t name(uint64_t seed)        \
	{                                                             \
		__asm__ volatile("" : : "i"(number));                 \
		seed = piece(seed + (number));                        \
		__asm__ volatile("" : "+r"(seed)); /* no tail call */ \
		return seed;                                          \
	}

#define SHARES(piece)              \
	SHARE(share_50, 50, piece) \
	SHARE(share_30, 30, piece) \
	SHARE(share_15, 15, piece) \
	SHARE(share_5, 5, piece)

static inline uint64_t spin(uint64_t seed)
{
	for (unsigned i = 0; i < 20000; i++)
		seed = seed * 6364136223846793005U + 1442695040888963407U;
	return seed;
}

static inline uint64_t next_random(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return *random;
}

static inline uint64_t call_one(piece_of_work *const functions[4], uint64_t *random)
{
	uint64_t percent = (next_random(random) >> 11) % 100;

	return functions[percent < 50 ? 0 : percent < 80 ? 1 : percent < 95 ? 2 : 3](*random);
}

#endif
