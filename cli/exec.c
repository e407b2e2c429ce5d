/*
 * exec.c - `postern exec`: run a program with libpostern preloaded.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "http/query.h"

#define PATH_SIZE 4096

/* As a shell says it of a program that cannot be run, or is not there. */
enum {
	EXIT_NOT_RUNNABLE = 126,
	EXIT_NOT_FOUND = 127,
};

struct exec_options {
	const char *listen, *name;
	char **program;
};

/* Beside this program as built (../lib), or where both were installed. */
static int find_library(char out[static PATH_SIZE], struct err *err)
{
	static const char *const places[] = { "/../lib/libpostern.so",
		"/../" POSTERN_LIBDIR "/libpostern.so" };
	char self[PATH_SIZE - 64], path[PATH_SIZE];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len <= 0)
		return err_sys(err, "/proc/self/exe");
	self[len] = '\0';
	*strrchr(self, '/') = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", self, places[i]);
		if (realpath(path, out)) {
			/* The loader takes both as the end of a name. */
			if (strpbrk(out, ": "))
				return err_set(err, ERR_INPUT,
					"'%s' cannot be preloaded: move it to a path without "
					"space and colon",
					out);
			return 0;
		}
	}
	return err_set(err, ERR_SYSTEM, "libpostern.so is not in %s/../lib nor in %s/../%s",
		self, self, POSTERN_LIBDIR);
}

static bool is_listen(const char *text)
{
	struct sv host, port;

	if (strcmp(text, "off") == 0)
		return true;
	if (strncmp(text, "unix:", 5) == 0)
		return text[5] == '/';
	if (!http_host_split(sv_from_cstr(text), &host, &port)) {
		/* Port 0 is no port of a Host header, but one to listen on. */
		const char *colon = strrchr(text, ':');
		struct sv before = { text, colon ? (size_t)(colon - text) : 0 };

		if (!colon || strcmp(colon, ":0") != 0 ||
			!http_host_split(before, &host, &port))
			return false;
		port = SV("0");
	}
	return port.len > 0 && http_host_is_loopback(host);
}

/* Is the loader that a program asks for musl's? It would find half of libpostern's functions missing. */
static bool names_musl(const unsigned char *bytes, size_t len, const Elf64_Phdr *segment)
{
	static const char musl[] = "/ld-musl-";

	return segment->p_offset < len && segment->p_filesz <= len - segment->p_offset &&
	       memmem(bytes + segment->p_offset, segment->p_filesz, musl, sizeof(musl) - 1);
}

/* Does the loader, and so LD_PRELOAD, have a part in starting it? What cannot be told is let pass:
 * the program's own start says what is wrong. */
static bool is_preloadable(const char *path, const char **why)
{
	unsigned char bytes[4096];
	Elf64_Ehdr head;
	struct stat info;
	ssize_t len;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return true;
	memset(bytes, 0, sizeof(bytes));
	len = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) ? read(fd, bytes, sizeof(bytes))
							     : 0;
	(void)close(fd);
	if (len < (ssize_t)sizeof(head) || memcmp(bytes, ELFMAG, SELFMAG) != 0)
		return true;
	memcpy(&head, bytes, sizeof(head));
	*why = "runs with another user's rights, so the loader takes no preload";
	if ((info.st_mode & S_ISUID && info.st_uid != geteuid()) ||
		(info.st_mode & S_ISGID && info.st_gid != getegid()))
		return false;
	*why = "is not a 64-bit program";
	if (bytes[EI_CLASS] != ELFCLASS64)
		return false;
	*why = "is linked statically: link libpostern_static.a (pkg-config postern-static)";
	for (unsigned i = 0; i < head.e_phnum; i++) {
		uint64_t at = head.e_phoff + (uint64_t)i * sizeof(Elf64_Phdr);
		Elf64_Phdr segment;

		if (at > sizeof(bytes) - sizeof(segment))
			return true;
		memcpy(&segment, bytes + at, sizeof(segment));
		if (segment.p_type == PT_INTERP) {
			*why = "is built with musl: the sampler needs glibc";
			return !names_musl(bytes, sizeof(bytes), &segment);
		}
	}
	return false;
}

/* As execvp() will find it. */
static bool find_program(const char *name, char out[static PATH_SIZE])
{
	const char *path = getenv("PATH");
	struct sv rest = sv_from_cstr(path ? path : "/usr/local/bin:/usr/bin:/bin");

	if (strchr(name, '/'))
		return sv_to_cstr(sv_from_cstr(name), out, PATH_SIZE);
	while (rest.len > 0) {
		struct sv folder = sv_cut(&rest, ':');
		int len = snprintf(out, PATH_SIZE, SV_FMT "/%s",
			SV_ARG(folder.len ? folder : SV(".")), name);

		if (len < PATH_SIZE && access(out, X_OK) == 0)
			return true;
	}
	return false;
}

static int set_environment(const struct exec_options *options, struct err *err)
{
	const char *before = getenv("LD_PRELOAD");
	char library[PATH_SIZE], list[2 * PATH_SIZE];

	if (find_library(library, err))
		return -1;
	if (snprintf(list, sizeof(list), "%s%s%s", library, before && *before ? ":" : "",
		    before ? before : "") >= (int)sizeof(list))
		return err_set(err, ERR_INPUT, "LD_PRELOAD is too long");
	if (setenv("LD_PRELOAD", list, 1) ||
		(options->listen && setenv("POSTERN_LISTEN", options->listen, 1)) ||
		(options->name && setenv("POSTERN_NAME", options->name, 1)))
		return err_sys(err, "environment");
	return 0;
}

static int read_options(int argc, char **argv, struct exec_options *options)
{
	static const struct option longs[] = {
		{ "name", required_argument, NULL, 'n' },
		{ "listen", required_argument, NULL, 'l' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	/* '+': what comes after the program is the program's. */
	while ((option = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		if (option == 'n')
			options->name = optarg;
		else if (option == 'l')
			options->listen = optarg;
		else
			return cli_usage(&exec_command, NULL);
	}
	if (options->listen && !is_listen(options->listen))
		return cli_usage(&exec_command,
			"--listen '%s': a loopback address and port (127.0.0.1:6060, [::1]:0), "
			"unix:/PATH or off; other machines come in through posternd",
			options->listen);
	if (optind >= argc)
		return cli_usage(&exec_command, "name a program after --");
	return CLI_DONE;
}

static int exec_main(int argc, char **argv)
{
	struct exec_options options = { 0 };
	char path[PATH_SIZE];
	const char *why;
	struct err err;
	int rc = read_options(argc, argv, &options);

	if (rc)
		return rc;
	options.program = argv + optind;
	if (!find_program(options.program[0], path)) {
		(void)cli_fail("%s: not found", options.program[0]);
		return EXIT_NOT_FOUND;
	}
	if (!is_preloadable(path, &why))
		return cli_fail("%s %s", path, why);
	if (set_environment(&options, &err))
		return cli_fail_err(&err);
	(void)execv(path, options.program);
	rc = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
	(void)err_sys(&err, "%s", path);
	(void)cli_fail_err(&err);
	return rc;
}

const struct cli_command exec_command = {
	.name = "exec",
	.arguments = "[--name N] [--listen ADDR] -- PROGRAM [ARGUMENTS]",
	.summary = "Run a program under the sampler",
	.help = "  --listen ADDR   where it serves /debug/pprof/: 127.0.0.1:PORT, [::1]:PORT, "
		"unix:/PATH\n"
		"                  or off; default: 127.0.0.1:6060. Taken: a unix socket "
		"instead, and\n"
		"                  the program runs all the same\n"
		"  --name N        what it is called there; default: the program's name\n"
		"The exit status is the program's; 127: not found, 126: cannot be run.",
	.example = "postern exec --name shop -- ./server --port 8080\n"
		   "go tool pprof http://127.0.0.1:6060/debug/pprof/profile?seconds=5",
	.run = exec_main,
};
