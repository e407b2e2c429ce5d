// Every piece of work ends in an exception that comes from eight frames below.
#include <cstdint>
#include <string>

extern "C" {
#include "tests/accuracy/shares.h"
}

static volatile bool always = true;

__attribute__((noinline)) static uint64_t fall(unsigned depth, uint64_t seed)
{
	std::string local(40, 'x'); // to be destroyed on the way

	if (depth == 0 && always)
		throw seed;
	return fall(depth - 1, seed) + local.size();
}

static inline uint64_t piece(uint64_t seed)
{
	uint64_t result = spin(seed);

	for (unsigned i = 0; i < 10; i++) {
		try {
			result += fall(8, seed);
		} catch (uint64_t thrown) {
			result ^= thrown;
		}
	}
	return result;
}

extern "C" {
SHARES(piece)
}

int main()
{
	static piece_of_work *const functions[4] = { share_50, share_30, share_15, share_5 };
	uint64_t random = 88172645463325252U;
	volatile uint64_t sum = 0;

	for (;;)
		sum = sum + call_one(functions, &random);
}
