/* trace_check_file FILE: is it a trace that keeps every rule of docs/trace.md? Its events, a line each; or why
 * not, and exit 1. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/trace_check.h"

#define FILE_MAX ((size_t)64 << 20)

int main(int argc, char **argv)
{
	FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
	static char bytes[FILE_MAX];
	char *text;
	static struct go_trace trace;
	size_t len;

	if (!file) {
		(void)fprintf(stderr, "usage: trace_check_file FILE\n");
		return 2;
	}
	len = fread(bytes, 1, FILE_MAX, file);
	(void)fclose(file);
	for (int late = 1; late >= 0; late--) {
		if (!go_trace_read((struct sv){ bytes, len }, late, &trace)) {
			(void)fprintf(stderr, "%s\n", trace.why);
			return 1;
		}
		if (late)
			go_trace_free(&trace);
	}
	text = go_trace_text(&trace);
	(void)fputs(text, stdout);
	free(text);
	go_trace_free(&trace);
	return 0;
}
