/*
 * arch.h - what must be known of the machine: its registers as DWARF numbers them, the kernel's signal
 * frame, a system call that leaves errno alone.
 */
#ifndef SAMPLER_ARCH_H
#define SAMPLER_ARCH_H

#if defined(__x86_64__)
#include "sampler/unwind/x86_64.h"
#elif defined(__aarch64__)
#include "sampler/unwind/aarch64.h"
#else
#error "the sampler knows x86-64 and aarch64"
#endif

/*
 * Can the 8 bytes at `address` be read? Asks the kernel to change the signal mask in a way that does
 * not exist, with the new mask at that address: it copies the mask first (EFAULT when it cannot)
 * and refuses then (EINVAL). Changes nothing, and every program may do it, sandboxed ones too.
 */
static inline bool arch_is_readable_sigsafe(uintptr_t address)
{
	/* A mask at address 0 would mean "none". */
	return address >= 4096 &&
	       arch_syscall_sigsafe(SYS_rt_sigprocmask, -1, (long)address, 0, 8) == -22;
}

/* Is this code, which can be read, what a signal handler returns to? (Some C libraries, languages and
 * emulators bring one without unwind information.) */
__attribute__((no_sanitize("address", "thread"))) static inline bool arch_is_trampoline_sigsafe(
	uintptr_t pc)
{
	const volatile uint8_t *code =
		(const volatile uint8_t *)pc; /* NOLINT(performance-no-int-to-ptr) */

	for (size_t i = 0; i < sizeof(arch_trampoline); i++) {
		if (code[i] != arch_trampoline[i])
			return false;
	}
	return true;
}

#endif
