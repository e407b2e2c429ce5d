/*
 * sandbox.h - what postern-lines gives up before it reads its first file: every right but to read
 * files, to take memory (as much as the limits say, and none that can be executed), and to talk on the
 * socket that it has.
 */
#ifndef SAMPLER_LINES_SANDBOX_H
#define SAMPLER_LINES_SANDBOX_H

/* Seconds of CPU and bytes of memory of its own at which it ends by itself between two questions; the
 * kernel ends it at twice that. */
#define SANDBOX_CPU_SECONDS  120
#define SANDBOX_MEMORY_BYTES (512UL << 20)

/* 0, or -1 when this kernel refuses something that must be had (Landlock and capabilities need not). */
int sandbox_enter(void);

#endif
