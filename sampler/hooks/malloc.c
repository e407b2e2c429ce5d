/*
 * malloc.c - in front of the allocator: counts bytes until the next sample, and asks at each free() whether
 * that object was one.
 *
 * Nearly every call is passed on by a jump, with nothing done but a subtraction or a look at a byte.  So
 * objects are the allocator's own, whichever that is, and whatever else it offers (malloc_usable_size,
 * malloc_trim, …) goes on working without us.  operator new and delete come here by way of the C++
 * library.  An allocator that defines them itself is not seen there: what we would define in their place
 * would have to call "the next one", and a library loaded later may bring its own, which only it can find.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/collect/heap.h"
#include "sampler/hooks/real.h"

#define SLOW __attribute__((noinline, cold))

typedef void *malloc_function(size_t);
typedef void free_function(void *);
typedef void *calloc_function(size_t, size_t);
typedef void *realloc_function(void *, size_t);
typedef int posix_memalign_function(void **, size_t, size_t);
typedef void *memalign_function(size_t, size_t);

static malloc_function begin_malloc;
static free_function begin_free;
static calloc_function begin_calloc;
static realloc_function begin_realloc;
static posix_memalign_function begin_posix_memalign;
static memalign_function begin_memalign, begin_aligned_alloc;
static malloc_function begin_valloc, begin_pvalloc;

/* What is behind ours.  At first a function of this file, which finds the real one and calls that. */
static struct {
	_Atomic(malloc_function *) malloc;
	_Atomic(free_function *) free;
	_Atomic(calloc_function *) calloc;
	_Atomic(realloc_function *) realloc;
	_Atomic(posix_memalign_function *) posix_memalign;
	_Atomic(memalign_function *) memalign, aligned_alloc;
	_Atomic(malloc_function *) valloc, pvalloc;
} real = {
	.malloc = begin_malloc,
	.free = begin_free,
	.calloc = begin_calloc,
	.realloc = begin_realloc,
	.posix_memalign = begin_posix_memalign,
	.memalign = begin_memalign,
	.aligned_alloc = begin_aligned_alloc,
	.valloc = begin_valloc,
	.pvalloc = begin_pvalloc,
};

#define REAL(name) atomic_load_explicit(&real.name, memory_order_relaxed)

/*
 * The loader itself may allocate while it looks for the allocator.  It gets pieces of this, which are
 * never given back; the filter of live objects knows them, so that free() looks twice.
 */
#define EARLY_BYTES ((size_t)64 << 10)
#define ALIGNMENT   ((size_t)16)

static char early[EARLY_BYTES] __attribute__((aligned(16)));
static atomic_size_t early_used;

static void *early_alloc(size_t size)
{
	size_t room = (size + 2 * ALIGNMENT - 1) & ~(ALIGNMENT - 1);
	size_t at = room < size ? EARLY_BYTES : atomic_fetch_add(&early_used, room);

	if (at > EARLY_BYTES || EARLY_BYTES - at < room) {
		errno = ENOMEM;
		return NULL;
	}
	memcpy(early + at, &size, sizeof(size)); /* for realloc() */
	live_mark_sigsafe(early + at + ALIGNMENT);
	return early + at + ALIGNMENT;
}

static bool is_early(const void *object)
{
	return (uintptr_t)object - (uintptr_t)early < EARLY_BYTES;
}

static real_function *find(const char *name, real_function *otherwise)
{
	real_function *found = real_find_optional(name, NULL);

	return found ? found : otherwise;
}

#define FIND(name)                                                                  \
	atomic_store_explicit(&real.name,                                           \
		(__typeof__(REAL(name)))find(#name, (real_function *)begin_##name), \
		memory_order_relaxed)

/* Find all of them, in the order in which the first calls come. False: this is a call from within. */
static bool find_all(void)
{
	if (self.inside)
		return false;
	self.inside++;
	FIND(malloc);
	FIND(free);
	FIND(calloc);
	FIND(realloc);
	FIND(posix_memalign);
	FIND(memalign);
	FIND(aligned_alloc);
	FIND(valloc);
	FIND(pvalloc);
	if (REAL(malloc) == begin_malloc)
		(void)real_find("malloc", NULL); /* says so and ends the program */
	self.inside--;
	return true;
}

/* A program cannot have been started without the first four; the others it may not have. */
#define IS_FOUND(name) (find_all() && REAL(name) != begin_##name)

static void *begin_malloc(size_t size)
{
	return IS_FOUND(malloc) ? REAL(malloc)(size) : early_alloc(size);
}

static void begin_free(void *object)
{
	if (object && IS_FOUND(free))
		REAL(free)(object);
}

static void *begin_calloc(size_t count, size_t size)
{
	size_t bytes;

	if (IS_FOUND(calloc))
		return REAL(calloc)(count, size);
	if (__builtin_mul_overflow(count, size, &bytes))
		bytes = SIZE_MAX;
	return early_alloc(bytes); /* never used before: zero */
}

static void *begin_realloc(void *object, size_t size)
{
	if (IS_FOUND(realloc))
		return REAL(realloc)(object, size);
	return object ? NULL : early_alloc(size);
}

static int begin_posix_memalign(void **object, size_t alignment, size_t size)
{
	return IS_FOUND(posix_memalign) ? REAL(posix_memalign)(object, alignment, size)
					: ENOMEM;
}

static void *none(void)
{
	errno = ENOMEM;
	return NULL;
}

static void *begin_memalign(size_t alignment, size_t size)
{
	return IS_FOUND(memalign) ? REAL(memalign)(alignment, size) : none();
}

static void *begin_aligned_alloc(size_t alignment, size_t size)
{
	return IS_FOUND(aligned_alloc) ? REAL(aligned_alloc)(alignment, size) : none();
}

static void *begin_valloc(size_t size)
{
	return IS_FOUND(valloc) ? REAL(valloc)(size) : none();
}

static void *begin_pvalloc(size_t size)
{
	return IS_FOUND(pvalloc) ? REAL(pvalloc)(size) : none();
}

/* The registers count as they are in the hook's caller: these are jumped to, so that it is theirs, too;
 * where the compiler does not jump, a frame "malloc" is on top, which readers hide. */

static SLOW void *slow_malloc(size_t size)
{
	void *object = REAL(malloc)(size);
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	heap_allocated_sigsafe(object, size, &regs);
	return object;
}

HOOK void *malloc(size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(malloc)(size);
	return slow_malloc(size);
}

static SLOW void slow_free(void *object)
{
	uint32_t bucket = heap_take_sigsafe(object);

	if (bucket)
		heap_freed_sigsafe(bucket);
	if (!is_early(object))
		REAL(free)(object);
}

HOOK void free(void *object)
{
	if (live_may_hold_sigsafe(object))
		slow_free(object);
	else
		REAL(free)(object);
}

/* Programs from before glibc 2.26. */
HOOK void cfree(void *object);

HOOK void cfree(void *object)
{
	free(object);
}

static SLOW void *slow_calloc(size_t count, size_t size)
{
	void *object = REAL(calloc)(count, size);
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	heap_allocated_sigsafe(object, count * size, &regs);
	return object;
}

HOOK void *calloc(size_t count, size_t size)
{
	if (heap_passes_sigsafe(count * size))
		return REAL(calloc)(count, size);
	return slow_calloc(count, size);
}

static void *move_early(void *object, size_t size)
{
	void *moved = malloc(size);
	size_t before;

	memcpy(&before, (char *)object - ALIGNMENT, sizeof(before));
	if (moved)
		memcpy(moved, object, before < size ? before : size);
	return moved;
}

/* One object ends, and another begins, be it in the same place: so it is counted, as everywhere. */
static SLOW void *slow_realloc(void *object, size_t size, bool passes)
{
	uint32_t bucket = live_may_hold_sigsafe(object) ? heap_take_sigsafe(object) : 0;
	struct unwind_regs regs;
	void *moved;

	if (object && is_early(object))
		return move_early(object, size);
	UNWIND_REGS_OF_CALLER(&regs);
	moved = REAL(realloc)(object, size);
	if (bucket && (moved || size == 0))
		heap_freed_sigsafe(bucket);
	else if (bucket)
		heap_kept_sigsafe(object, bucket);
	if (!passes)
		heap_allocated_sigsafe(moved, size, &regs);
	return moved;
}

HOOK void *realloc(void *object, size_t size)
{
	bool passes = heap_passes_sigsafe(size);

	if (passes && !live_may_hold_sigsafe(object))
		return REAL(realloc)(object, size);
	return slow_realloc(object, size, passes);
}

HOOK void *reallocarray(void *object, size_t count, size_t size)
{
	size_t bytes;
	bool passes;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	passes = heap_passes_sigsafe(bytes);
	if (passes && !live_may_hold_sigsafe(object))
		return REAL(realloc)(object, bytes);
	return slow_realloc(object, bytes, passes);
}

static SLOW int slow_posix_memalign(void **object, size_t alignment, size_t size)
{
	int rc = REAL(posix_memalign)(object, alignment, size);
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	heap_allocated_sigsafe(rc ? NULL : *object, size, &regs);
	return rc;
}

HOOK int posix_memalign(void **object, size_t alignment, size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(posix_memalign)(object, alignment, size);
	return slow_posix_memalign(object, alignment, size);
}

static SLOW void *slow_memalign(memalign_function *function, size_t alignment, size_t size)
{
	void *object = function(alignment, size);
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	heap_allocated_sigsafe(object, size, &regs);
	return object;
}

HOOK void *memalign(size_t alignment, size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(memalign)(alignment, size);
	return slow_memalign(REAL(memalign), alignment, size);
}

HOOK void *aligned_alloc(size_t alignment, size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(aligned_alloc)(alignment, size);
	return slow_memalign(REAL(aligned_alloc), alignment, size);
}

static SLOW void *slow_valloc(malloc_function *function, size_t size)
{
	void *object = function(size);
	struct unwind_regs regs;

	UNWIND_REGS_OF_CALLER(&regs);
	heap_allocated_sigsafe(object, size, &regs);
	return object;
}

HOOK void *valloc(size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(valloc)(size);
	return slow_valloc(REAL(valloc), size);
}

HOOK void *pvalloc(size_t size)
{
	if (heap_passes_sigsafe(size))
		return REAL(pvalloc)(size);
	return slow_valloc(REAL(pvalloc), size);
}
