/*
 * memfile.h - bytes in a memory file that nobody can change any more.
 */
#ifndef GATEWAY_MEMFILE_H
#define GATEWAY_MEMFILE_H

#include "base/err.h"
#include "base/sv.h"

/* A sealed memory file with these bytes; its descriptor, or -1. */
int memfile_create(const char *name, struct sv bytes, struct err *err);

/* Map all of it, to be read. -1 unless it is sealed. The view lives as long as the process. */
int memfile_map(int fd, struct sv *bytes, struct err *err);

#endif
