/* An allocator of the program's own, behind a mutex, as some programs have it: whoever allocates in a hook of
 * that mutex comes back here. */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define CLASSES    24 /* 32 bytes to 256 MB */
#define LEAST_BITS 5
#define PIECE      ((size_t)1 << 20)

/* Before each object; 16 bytes. */
struct head {
	size_t class;
	struct head *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct head *unused[CLASSES];
static char *piece;
static size_t piece_left;

void *malloc(size_t size);
void free(void *object);
void *calloc(size_t count, size_t size);
void *realloc(void *object, size_t size);
int posix_memalign(void **out, size_t alignment, size_t size);
void *aligned_alloc(size_t alignment, size_t size);
size_t malloc_usable_size(void *object);

static size_t bytes_of(size_t class)
{
	return (size_t)1 << (class + LEAST_BITS);
}

static void *map(size_t bytes)
{
	void *mapped =
		mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mapped == MAP_FAILED ? NULL : mapped;
}

static struct head *fresh(size_t class)
{
	size_t bytes = bytes_of(class);
	struct head *head;

	if (bytes > PIECE / 4)
		return map(bytes);
	if (piece_left < bytes) {
		piece = map(PIECE);
		piece_left = piece ? PIECE : 0;
	}
	if (!piece)
		return NULL;
	head = (void *)piece;
	piece += bytes;
	piece_left -= bytes;
	return head;
}

void *malloc(size_t size)
{
	size_t class = 0;
	struct head *head;

	while (class < CLASSES && bytes_of(class) < size + sizeof(*head))
		class ++;
	if (class == CLASSES) {
		errno = ENOMEM;
		return NULL;
	}
	(void)pthread_mutex_lock(&lock);
	head = unused[class];
	if (head)
		unused[class] = head->next;
	else
		head = fresh(class);
	(void)pthread_mutex_unlock(&lock);
	if (!head)
		return NULL;
	head->class = class;
	return head + 1;
}

void free(void *object)
{
	struct head *head = object;

	if (!head--)
		return;
	(void)pthread_mutex_lock(&lock);
	head->next = unused[head->class];
	unused[head->class] = head;
	(void)pthread_mutex_unlock(&lock);
}

size_t malloc_usable_size(void *object)
{
	struct head *head = object;

	return head ? bytes_of(head[-1].class) - sizeof(*head) : 0;
}

void *calloc(size_t count, size_t size)
{
	size_t bytes;
	void *object = __builtin_mul_overflow(count, size, &bytes) ? NULL : malloc(bytes);

	/* Not memset(): the compiler would make calloc() of the two. */
	for (volatile char *at = object; object && at < (char *)object + bytes; at++)
		*at = 0;
	return object;
}

void *realloc(void *object, size_t size)
{
	size_t had = malloc_usable_size(object);
	void *other;

	if (object && size <= had)
		return object;
	other = malloc(size);
	if (other && object)
		memcpy(other, object, had);
	if (other)
		free(object);
	return other;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return alignment <= sizeof(struct head) ? malloc(size) : NULL;
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	*out = aligned_alloc(alignment, size);
	return *out ? 0 : ENOMEM;
}
