/* C++ names for tests/e2e/test_lines.py: a template, a namespace without a name, a lambda. */
#include <atomic>
#include <csignal>

static std::atomic<bool> stops;

namespace shop
{
template <class Price> struct Cart {
	Price sum{};

	__attribute__((noinline)) void add(Price price, int times)
	{
		for (int i = 0; i < times; i++)
			sum = sum * Price(1.0000001) + price; // HERE: add
	}
};

namespace
{
__attribute__((noinline)) double hidden_total(double start)
{
	auto each = [](double x) __attribute__((noinline))
	{
		for (int i = 0; i < 20000; i++)
			x = x * 1.0000001 + i; // HERE: lambda
		return x;
	};
	return each(start) + 1;
}
} // namespace
} // namespace shop

int main()
{
	shop::Cart<double> cart;
	volatile double sink = 0;

	std::signal(SIGTERM, [](int) { stops = true; });
	while (!stops) {
		cart.add(3, 20000);
		sink = sink + shop::hidden_total(cart.sum);
	}
	return 0;
}
