#include "examples/vtp-demo/demo.h"

struct postern_region watch_begin(const char *name)
{
	if (postern_region_begin)
		return postern_region_begin(name);
	return (struct postern_region){ 0 };
}

void watch_end(const struct postern_region *region)
{
	if (postern_region_end)
		postern_region_end(region);
}

void watch_route(const char *route)
{
	if (postern_label)
		postern_label("route", route);
}

void watch_log(const char *key, const char *text)
{
	if (postern_log)
		postern_log(key, text);
}
