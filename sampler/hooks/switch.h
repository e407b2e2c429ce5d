/*
 * switch.h - hooks that cost a load and a jump while nobody wants to know what they see.
 *
 * Such a hook jumps to where a pointer leads: off, straight to the C library; on, to a function named on_…,
 * which its caller has called then for all that a stack tells.  A file lists its hooks in one macro
 *
 *	#define HOOKS(X) X(result, name, version, modes, number of arguments, their types…) …
 *
 * and says HOOKS(SWITCH_DECLARE) HOOKS(SWITCH_FIRST) HOOKS(SWITCH_DEFINE); then a constructor with
 * HOOKS(SWITCH_FIND), and a function of `unsigned mode` with HOOKS(SWITCH_FOLLOW), which leads a hook to its
 * on_… function when the mode has one of its bits.
 */
#ifndef SAMPLER_SWITCH_H
#define SAMPLER_SWITCH_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler/hooks/real.h"

#define LIKELY(x)      __builtin_expect(!!(x), 1)
#define UNLIKELY(x)    __builtin_expect(!!(x), 0)
#define SLOW           static __attribute__((noinline, cold))
#define RETURN_ADDRESS ((uintptr_t)__builtin_return_address(0))

/* clang-format off */
#define ARGS_1(A)                (A a)
#define ARGS_2(A, B)             (A a, B b)
#define ARGS_3(A, B, C)          (A a, B b, C c)
#define ARGS_4(A, B, C, D)       (A a, B b, C c, D d)
#define ARGS_5(A, B, C, D, E)    (A a, B b, C c, D d, E e)
#define ARGS_6(A, B, C, D, E, F) (A a, B b, C c, D d, E e, F f)
#define ARGS_7(A, B, C, D, E, F, G) (A a, B b, C c, D d, E e, F f, G g)
#define PASS_1                   (a)
#define PASS_2                   (a, b)
#define PASS_3                   (a, b, c)
#define PASS_4                   (a, b, c, d)
#define PASS_5                   (a, b, c, d, e)
#define PASS_6                   (a, b, c, d, e, f)
#define PASS_7                   (a, b, c, d, e, f, g)
/* clang-format on */

/* The function behind ours; and where ours leads to now. Both begin at one that finds the first. */
#define SWITCH_DECLARE(result, name, version, modes, len, ...) \
	typedef result type_##name ARGS_##len(__VA_ARGS__);    \
	static type_##name first_##name, on_##name;            \
	static _Atomic(type_##name *) real_##name = first_##name, now_##name = first_##name;

#define REAL(name) (*atomic_load_explicit(&real_##name, memory_order_relaxed))

#define SWITCH_FIRST(result, name, version, modes, len, ...)                     \
	SLOW result first_##name ARGS_##len(__VA_ARGS__)                         \
	{                                                                        \
		type_##name *from = first_##name;                                \
		type_##name *found = (type_##name *)real_find(#name, (version)); \
                                                                                 \
		atomic_store(&real_##name, found);                               \
		atomic_compare_exchange_strong(&now_##name, &from, found);       \
		return found PASS_##len;                                         \
	}

/* The hook has another name, too, which the linker drops: by its own, another library's may be meant. */
#define SWITCH_DEFINE(result, name, version, modes, len, ...)                                \
	static result own_##name ARGS_##len(__VA_ARGS__) __asm__(".Lown_" #name)             \
		__attribute__((unused));                                                     \
	static result own_##name ARGS_##len(__VA_ARGS__)                                     \
	{                                                                                    \
		return (*atomic_load_explicit(&now_##name, memory_order_relaxed))PASS_##len; \
	}                                                                                    \
	HOOK result name ARGS_##len(__VA_ARGS__) __attribute__((alias(".Lown_" #name)));

static inline real_function *switch_choose(bool is_on, real_function *on, real_function *real)
{
	return is_on ? on : real;
}

#define SWITCH_FOLLOW(result, name, version, modes, len, ...)                         \
	atomic_store(&now_##name, (type_##name *)switch_choose((mode & (modes)) != 0, \
					  (real_function *)on_##name,                 \
					  (real_function *)atomic_load(&real_##name)));

/* Before there are threads, and so that nobody meets the loader's lock at a first call. What this C library
 * does not have stays to be found by who calls it, and cannot be. Say dlerror() afterwards: what we did
 * not find is no news to the program. */
static inline real_function *switch_find(
	const char *name, const char *version, real_function *otherwise)
{
	real_function *found = real_find_optional(name, version);

	return found ? found : otherwise;
}

#define SWITCH_FIND(result, name, version, modes, len, ...) \
	atomic_store(&real_##name,                          \
		(type_##name *)switch_find(#name, version, (real_function *)first_##name));

#endif
