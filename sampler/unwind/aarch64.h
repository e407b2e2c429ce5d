/*
 * aarch64.h - see arch.h.
 */
#ifndef SAMPLER_ARCH_AARCH64_H
#define SAMPLER_ARCH_AARCH64_H

#include <asm/perf_regs.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* DWARF register numbers (DWARF for the Arm 64-bit Architecture, section 4.1): x0 to x30, sp. */
#define ARCH_REGS 32
#define ARCH_FP   29
#define ARCH_SP   31
#define ARCH_RA   30 /* the link register: its column is the return address's */

/* Those that a function may change without saving them: x0 to x17. */
#define ARCH_SCRATCH 0x3ffffU

/* A call leaves the return address in the link register; a leaf function keeps it there. */
#define ARCH_HAS_LR 1
#define ARCH_CALL   0 /* what CFA - stack pointer is at a function's first instruction */

/* Rows of the unwind table: the first of the 16 registers that a CFA may be based on (x16 to sp), and
 * a distance from the CFA in words: the frame record may lie below all of a large frame. */
#define ARCH_ROW_FIRST 16U
#define ARCH_SLOT_MIN  INT16_MIN
#define ARCH_SLOT_MAX  INT16_MAX
typedef int16_t arch_slot;

static inline uintptr_t arch_context_reg(const ucontext_t *context, unsigned reg)
{
	return reg == ARCH_SP ? context->uc_mcontext.sp : context->uc_mcontext.regs[reg];
}

static inline uintptr_t arch_context_pc(const ucontext_t *context)
{
	return context->uc_mcontext.pc;
}

/* At __kernel_rt_sigreturn the stack pointer stands at the kernel's struct rt_sigframe: siginfo and
 * ucontext, in which sp and pc follow x30. */
#define ARCH_SIGNAL_REG(reg) \
	(sizeof(siginfo_t) + offsetof(ucontext_t, uc_mcontext.regs) + (uintptr_t)(reg)*8)
#define ARCH_SIGNAL_PC ARCH_SIGNAL_REG(ARCH_REGS)

/* What perf samples are to carry (asm/perf_regs.h), and in which order they do: x0 to x30, sp and pc, by
 * DWARF number, or ARCH_PERF_PC. */
#define ARCH_PERF_PC   0xff
#define ARCH_PERF_MASK ((UINT64_C(1) << PERF_REG_ARM64_MAX) - 1)
static const uint8_t arch_perf_regs[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
	16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, ARCH_PERF_PC };

/* mov x8, #139; svc #0 */
static const uint8_t arch_trampoline[] = { 0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4 };

/* A system call that leaves errno alone. */
static inline long arch_syscall_sigsafe(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}

/* The calling thread's control block: in every thread but the first it is at the upper end of the
 * thread's own stack. */
static inline uintptr_t arch_thread_pointer_sigsafe(void)
{
	uintptr_t pointer;

	__asm__("mrs %0, tpidr_el0" : "=r"(pointer));
	return pointer;
}

/* A return address as it was before it was signed: xpaclri, which older processors take for a nop. */
static inline uintptr_t arch_strip_sigsafe(uintptr_t address)
{
	register uintptr_t lr __asm__("x30") = address;

	__asm__("hint #7" : "+r"(lr));
	return lr;
}

#endif
