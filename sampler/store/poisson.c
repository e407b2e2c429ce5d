#include "sampler/store/poisson.h"

#include <string.h>

#define LN2_HIGH 0x1.62e42feep-1 /* so few bits that small multiples of it are exact */
#define LN2_LOW  0x1.a39ef35793c76p-33
#define LN2_INV  0x1.71547652b82fep0
#define SQRT2    0x1.6a09e667f3bcdp0
#define TERMS    12

/* ln m = 2 artanh((m - 1) / (m + 1)), for m within a factor of sqrt(2) of 1. */
double poisson_log(double x)
{
	double z, zz, power, sum = 0;
	uint64_t bits;
	int exponent;

	memcpy(&bits, &x, sizeof(bits));
	exponent = (int)(bits >> 52) - 1023;
	bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
	memcpy(&x, &bits, sizeof(x));
	if (x > SQRT2) {
		x /= 2;
		exponent++;
	}
	z = (x - 1) / (x + 1);
	zz = z * z;
	power = z;
	for (int i = 0; i < TERMS; i++) {
		sum += power / (2 * i + 1);
		power *= zz;
	}
	return exponent * LN2_HIGH + (2 * sum + exponent * LN2_LOW);
}

/* 1 - exp(-r) of a small r, by its series. */
static double share_of_small(double r)
{
	double term = r, sum = r;

	for (int i = 2; i < 2 * TERMS; i++) {
		term *= -r / i;
		sum += term;
	}
	return sum;
}

/* exp(-x) = 2^-k exp(-r), with r = x - k ln 2 at most half of ln 2. */
double poisson_share(double x)
{
	double rest, power;
	uint64_t bits;
	int k;

	if (x > 700)
		return 1;
	k = (int)(x * LN2_INV + 0.5);
	rest = share_of_small(x - k * LN2_HIGH - k * LN2_LOW);
	bits = (uint64_t)(1023 - k) << 52;
	memcpy(&power, &bits, sizeof(power));
	return (1 - power) + power * rest;
}

int64_t poisson_distance(uint64_t random, uint64_t rate)
{
	/* 52 bits and a half: never 0, never 1. */
	double uniform = ((double)(random >> 12) + 0.5) * 0x1p-52;

	return (int64_t)(-poisson_log(uniform) * (double)rate);
}

double poisson_scale(uint64_t size, uint64_t rate)
{
	if (rate <= 1 || size == 0)
		return 1;
	return 1 / poisson_share((double)size / (double)rate);
}
