/*
 * x86_64.h - what the unwinder must know of this architecture.
 */
#ifndef SAMPLER_ARCH_X86_64_H
#define SAMPLER_ARCH_X86_64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* DWARF register numbers (System V ABI for x86-64, figure 3.36). */
#define ARCH_REGS 16
#define ARCH_FP   6
#define ARCH_SP   7

/* Those that a function may change without saving them: rax, rdx, rcx, rsi, rdi, r8 to r11. */
#define ARCH_SCRATCH 0x0f37U

/* The general registers in the kernel's order (struct sigcontext), by DWARF number. */
static const uint8_t arch_context_index[ARCH_REGS] = { REG_RAX, REG_RDX, REG_RCX, REG_RBX,
	REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13,
	REG_R14, REG_R15 };

/* At __restore_rt the stack pointer stands at the kernel's struct ucontext. */
#define ARCH_SIGNAL_GREGS offsetof(ucontext_t, uc_mcontext.gregs)

/* A system call that leaves errno alone. */
static inline long arch_syscall_sigsafe(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}

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

/* The calling thread's control block: in every thread but the first it is the upper end of the
 * thread's own stack. */
static inline uintptr_t arch_thread_pointer_sigsafe(void)
{
	uintptr_t pointer;

	__asm__("mov %%fs:0, %0" : "=r"(pointer));
	return pointer;
}

/* Is this code, which can be read, what a signal handler returns to? (Some C libraries and languages
 * bring one without unwind information.) */
#define ARCH_TRAMPOLINE_BYTES 9

__attribute__((no_sanitize("address", "thread"))) static inline bool arch_is_trampoline_sigsafe(
	uintptr_t pc)
{
	/* mov $15, %rax; syscall */
	static const uint8_t restore[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };
	const volatile uint8_t *code =
		(const volatile uint8_t *)pc; /* NOLINT(performance-no-int-to-ptr) */

	for (size_t i = 0; i < sizeof(restore); i++) {
		if (code[i] != restore[i])
			return false;
	}
	return true;
}

#endif
