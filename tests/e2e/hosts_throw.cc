/*
 * hosts_throw SECONDS - C++: operator new and delete of its own, and exceptions through many frames, all the
 * time, in several threads. What is printed depends on nothing.
 */
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::atomic<long> living;

void *operator new(std::size_t size)
{
	void *object = std::malloc(size + 16);

	if (!object)
		throw std::bad_alloc();
	living++;
	*static_cast<long *>(object) = 4711;
	return static_cast<char *>(object) + 16;
}

void operator delete(void *object) noexcept
{
	if (!object)
		return;
	object = static_cast<char *>(object) - 16;
	if (*static_cast<long *>(object) != 4711)
		std::abort();
	*static_cast<long *>(object) = 0;
	living--;
	std::free(object);
}

void operator delete(void *object, std::size_t) noexcept
{
	operator delete(object);
}

static int descend(int depth)
{
	auto kept = std::make_unique<std::string>(100, 'x');

	if (depth == 0)
		throw std::runtime_error(*kept);
	return descend(depth - 1) + static_cast<int>(kept->size());
}

static void work(double seconds, long *caught)
{
	auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);

	for (long i = 0; std::chrono::steady_clock::now() < end; i++) {
		std::map<int, std::string> words;

		words[static_cast<int>(i)] = "word";
		try {
			(void)descend(1 + static_cast<int>(i % 40));
		} catch (const std::exception &error) {
			*caught += std::string(error.what()).size() == 100;
			continue;
		}
		std::abort();
	}
}

int main(int, char **argv)
{
	long before = living, caught[3] = {};
	{
		std::vector<std::thread> threads;

		for (long &count : caught)
			threads.emplace_back(work, std::atof(argv[1]), &count);
		for (std::thread &thread : threads)
			thread.join();
	}
	std::printf("caught: %d, left over: %ld\n", caught[0] && caught[1] && caught[2],
		living - before);
	return 0;
}
