/*
 * x86_64.h - see arch.h.
 */
#ifndef SAMPLER_ARCH_X86_64_H
#define SAMPLER_ARCH_X86_64_H

#include <asm/perf_regs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* DWARF register numbers (System V ABI for x86-64, figure 3.36). */
#define ARCH_REGS 16
#define ARCH_FP   6
#define ARCH_SP   7
#define ARCH_RA   16 /* the column of the return address, which a call pushes */

/* Those that a function may change without saving them: rax, rdx, rcx, rsi, rdi, r8 to r11. */
#define ARCH_SCRATCH 0x0f37U

/* A call leaves the return address on the stack, not in a register: it is just below the CFA. */
#define ARCH_HAS_LR 0
#define ARCH_CALL   8 /* what CFA - stack pointer is at a function's first instruction */

/* Rows of the unwind table: the first of the 16 registers that a CFA may be based on, and a distance
 * from the CFA in words. */
#define ARCH_ROW_FIRST 0U
#define ARCH_SLOT_MIN  INT8_MIN
#define ARCH_SLOT_MAX  INT8_MAX
typedef int8_t arch_slot;

/* The general registers in the kernel's order (struct sigcontext), by DWARF number. */
static const uint8_t arch_context_index[ARCH_REGS] = { REG_RAX, REG_RDX, REG_RCX, REG_RBX,
	REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13,
	REG_R14, REG_R15 };

static inline uintptr_t arch_context_reg(const ucontext_t *context, unsigned reg)
{
	return (uintptr_t)context->uc_mcontext.gregs[arch_context_index[reg]];
}

static inline uintptr_t arch_context_pc(const ucontext_t *context)
{
	return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
}

/* At __restore_rt the stack pointer stands at the kernel's struct ucontext. */
#define ARCH_SIGNAL_GREGS    offsetof(ucontext_t, uc_mcontext.gregs)
#define ARCH_SIGNAL_REG(reg) (ARCH_SIGNAL_GREGS + (uintptr_t)arch_context_index[reg] * 8)
#define ARCH_SIGNAL_PC       (ARCH_SIGNAL_GREGS + (uintptr_t)REG_RIP * 8)

/* What perf samples are to carry (asm/perf_regs.h), and in which order they do: by DWARF number, or
 * ARCH_PERF_PC. */
#define ARCH_PERF_PC 0xff
#define ARCH_PERF_MASK \
	(((UINT64_C(2) << PERF_REG_X86_IP) - 1) | (UINT64_C(0xff) << PERF_REG_X86_R8))
static const uint8_t arch_perf_regs[] = { 0, 3, 2, 1, 4, 5, 6, 7, ARCH_PERF_PC, 8, 9, 10, 11,
	12, 13, 14, 15 };

/* mov $15, %rax; syscall */
static const uint8_t arch_trampoline[] = { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 };

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

/* The calling thread's control block: in every thread but the first it is the upper end of the
 * thread's own stack. */
static inline uintptr_t arch_thread_pointer_sigsafe(void)
{
	uintptr_t pointer;

	__asm__("mov %%fs:0, %0" : "=r"(pointer));
	return pointer;
}

/* A return address as it was before it was signed. */
static inline uintptr_t arch_strip_sigsafe(uintptr_t address)
{
	return address;
}

#endif
