/*
 * postern.h - profile a running C or C++ program with Go's tools.
 *
 * Link libpostern, or run the unmodified program under `postern exec`, and it serves Go's
 * /debug/pprof/ endpoints on loopback.  Every function may be called from any thread at any time;
 * none of them ever ends the program.
 */
#ifndef POSTERN_H
#define POSTERN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* With POSTERN_OPTIONAL a program needs no libpostern to be linked or run: the functions below are NULL
 * unless it is preloaded, and are to be asked for before they are called. */
#ifdef POSTERN_OPTIONAL
#define POSTERN_API __attribute__((weak))
#else
#define POSTERN_API __attribute__((visibility("default")))
#endif

/* Start the server. `listen` is "127.0.0.1:6060", "[::1]:0", "unix:/run/x.sock" or NULL for
 * POSTERN_LISTEN, else 127.0.0.1:6060. `name` is what the process is called in profiles and on
 * the index page; NULL for POSTERN_NAME, else the program's own name. Returns NULL, or an error
 * text that stays valid. Starting what is started already is fine. */
POSTERN_API const char *postern_start(const char *listen, const char *name);

/* Stop serving and free the port. Running captures are cut. */
POSTERN_API void postern_stop(void);

/* Sample the heap on average once in so many bytes that are allocated (POSTERN_HEAP_RATE, else 524288); 1 is
 * every allocation, 0 off. Objects that were sampled are followed to their end all the same. */
POSTERN_API void postern_set_heap_rate(uint64_t bytes);

/*
 * Labels of the calling thread: CPU, wall and lock profiles tell samples apart by them (`-tagfocus`,
 * `-tags`).  Set until set to another value; NULL or "" takes the label away.  A thread has at most 8,
 * texts are cut at 255 bytes.  Values are kept for the life of the process, in 16 MB at most: a route is a
 * good label, a request's number is not.
 */
POSTERN_API void postern_label(const char *key, const char *value);

/*
 * A stretch of work that has a name: "api", "query".  It is a region of its thread in execution
 * traces, the label `region` in profiles, and a histogram of durations in /metrics
 * (postern_region_duration_seconds).  Regions of a thread nest.  Ended by another thread than began
 * it, it counts in the histogram alone.  There may be some 1,500 names.
 *
 *	struct postern_region region = postern_region_begin("query");
 *	…
 *	postern_region_end(&region);
 */
struct postern_region { /* nothing in it is for you */
	uint64_t begin_ns;
	uint32_t name, outer, tid;
};

POSTERN_API struct postern_region postern_region_begin(const char *name);
POSTERN_API void postern_region_end(const struct postern_region *region);

/*
 * Lock contention, both off unless switched on here or by POSTERN_MUTEX_FRACTION and POSTERN_BLOCK_RATE.
 *
 * The mutex profile shows who kept others waiting: one in `fraction` such events is recorded, 0 switches
 * it off, a negative one changes nothing.  Returns what it was before.  (Go's SetMutexProfileFraction.)
 *
 * The block profile shows who waited, for locks, conditions and semaphores: one sample for each `ns`
 * nanoseconds waited; 1 is every wait, 0 and less is off. (Go's SetBlockProfileRate.)
 */
POSTERN_API int postern_set_mutex_fraction(int fraction);
POSTERN_API void postern_set_block_rate(long long ns);

/* A line for execution traces, at this moment of this thread. Costs next to nothing when none is taken. */
POSTERN_API void postern_log(const char *key, const char *text);

#ifdef __cplusplus
}

namespace postern
{
/* A region as long as the block it stands in. */
class region
{
      public:
	explicit region(const char *name) : state(postern_region_begin(name))
	{
	}

	~region()
	{
		postern_region_end(&state);
	}

	region(const region &) = delete;
	region &operator=(const region &) = delete;

      private:
	struct postern_region state;
};
} // namespace postern
#endif

#endif
