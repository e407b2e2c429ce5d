/*
 * code.h - what machine code tells about the stack, where unwind information does not.
 *
 * Pure: bytes in, facts out; hostile bytes give wrong facts, never a read outside of them.  What is
 * found is a hint, to be checked against the stack.  On a machine that is not known here nothing is
 * ever found.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, chapter 2 and
 * appendix A; System V ABI for x86-64, section 3.2.
 */
#ifndef SAMPLER_CODE_H
#define SAMPLER_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a function that has set its frame pointer: */
struct code_frame {
	size_t size;   /* how far it then moved the stack pointer down */
	bool is_exact; /* else it moved on, by how much the code does not say */
};

/* Do these bytes end in the instructions that save the frame pointer and set it anew, between which lie
 * `between` bytes (what stands between two rows of a table)? */
bool code_sets_frame(const uint8_t *code, size_t len, size_t between);

/* The instructions from there on. */
struct code_frame code_read_frame(const uint8_t *code, size_t len);

/* Is there anything in this function that moves the stack pointer by what it computes (alloca)? */
bool code_is_dynamic(const uint8_t *code, size_t len);

/* How much is taken off the stack at once where a call returns to: the arguments that were pushed for it. */
size_t code_popped(const uint8_t *code, size_t len);

/* A marker of jump targets that a function may begin with; bytes. */
#define CODE_MARKER 4
bool code_is_marker(const uint8_t *code, size_t len);

enum code_call {
	CODE_NO_CALL = 0,
	CODE_CALL_DIRECT,
	CODE_CALL_INDIRECT,
};

/* The call that ends where these bytes end, which is at address `pc`. */
#define CODE_CALL_MAX 8
enum code_call code_call_before(
	const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *target);

/* Is the code at `pc` nothing but a jump by way of a word in memory? Then the word's address. */
#define CODE_JUMP_MAX 16
bool code_jump_slot(const uint8_t *code, size_t len, uintptr_t pc, uintptr_t *slot);

#endif
