/*
 * postern.h - profile a running C or C++ program with Go's tools.
 *
 * Link libpostern, or run the unmodified program under `postern exec`, and it serves Go's
 * /debug/pprof/ endpoints on loopback.  Every function may be called from any thread at any time;
 * none of them ever ends the program.
 */
#ifndef POSTERN_H
#define POSTERN_H

#ifdef __cplusplus
extern "C" {
#endif

#define POSTERN_API __attribute__((visibility("default")))

/* Start the server. `listen` is "127.0.0.1:6060", "[::1]:0", "unix:/run/x.sock" or NULL for
 * POSTERN_LISTEN, else 127.0.0.1:6060. `name` is what the process is called in profiles and on
 * the index page; NULL for POSTERN_NAME, else the program's own name. Returns NULL, or an error
 * text that stays valid. Starting what is started already is fine. */
POSTERN_API const char *postern_start(const char *listen, const char *name);

/* Stop serving and free the port. Running captures are cut. */
POSTERN_API void postern_stop(void);

#ifdef __cplusplus
}
#endif

#endif
