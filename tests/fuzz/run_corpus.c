/*
 * run_corpus.c - stands in for libFuzzer: runs every file of the folders named on the command
 * line through the target once.  An empty or missing corpus is a failure, not a pass.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX ((size_t)1 << 20)

static int run_file(const char *folder, const char *name)
{
	char path[4096];
	uint8_t *data;
	FILE *file;
	size_t len;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return -1;
	file = fopen(path, "re");
	if (!file) {
		perror(path);
		return -1;
	}
	data = malloc(INPUT_MAX);
	if (!data) {
		(void)fclose(file);
		return -1;
	}
	len = fread(data, 1, INPUT_MAX, file);
	(void)fclose(file);
	/* An allocation of exactly the input's size, so that the sanitizer sees a read past it. */
	if (len > 0) {
		uint8_t *exact = realloc(data, len);

		data = exact ? exact : data;
	}
	(void)LLVMFuzzerTestOneInput(data, len);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long runs = 0;

	for (int i = 1; i < argc; i++) {
		DIR *dir = opendir(argv[i]);
		struct dirent *entry;

		if (!dir) {
			perror(argv[i]);
			return 1;
		}
		while ((entry = readdir(dir))) {
			if (entry->d_name[0] == '.')
				continue;
			if (run_file(argv[i], entry->d_name))
				return 1;
			runs++;
		}
		(void)closedir(dir);
	}
	printf("%lu inputs\n", runs);
	return runs > 0 ? 0 : 1;
}
