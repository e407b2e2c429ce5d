/*
 * life.h - the start that happens by being loaded.
 */
#ifndef SAMPLER_LIFE_H
#define SAMPLER_LIFE_H

/* Start the server as the environment says, and take ourselves out of it. `library` is the path that
 * LD_PRELOAD names us by. Never fails the program: what is wrong is said once on standard error. */
void life_begin(const char *library);

#endif
