/*
 * last.h - the process ends when the program's last thread has ended.
 *
 * When the first thread ends by pthread_exit(), the process lives on as long as another does, and the C
 * library calls exit() in the last.  Ours would be that one, and waits for ever: so a thread is made
 * at that moment that waits for the others, ends ours, and is the last, with the program's descriptors.
 */
#ifndef SAMPLER_LAST_H
#define SAMPLER_LAST_H

/* To be called in the process's first thread (elsewhere it does nothing), again in each forked child. `start`
 * makes a thread of ours, `stop` ends the server's. */
void last_watch(int (*start)(void *(*run)(void *)), void (*stop)(void));

#endif
