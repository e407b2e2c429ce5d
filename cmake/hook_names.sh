#!/bin/sh
# hook_names.sh READELF DIR OBJECT...: which of the C library's functions the objects stand in front of, as
# DIR/visible.txt for objcopy (what an archive shows), DIR/redefine.txt for objcopy (what a static program
# has wrapped), DIR/wrapped.h (the same, for real_static.c) and DIR/wrap.txt (the same, for pkg-config).
set -eu
readelf=$1 dir=$2
shift 2
names=$("$readelf" -sW "$@" |
	awk '$5 == "GLOBAL" && $6 == "DEFAULT" && $7 ~ /^[0-9]+$/ { print $8 }' | sort -u)
{
	echo 'postern_*'
	echo "$names"
} >"$dir/visible.txt"
# No C library that can be linked has cfree() any more; the other is a preloaded library's affair.
wrapped=$(echo "$names" | grep -vx -e cfree -e __asan_default_options)
echo "$wrapped" | sed 's/.*/& __wrap_&/' >"$dir/redefine.txt"
echo "$wrapped" | sed 's/.*/WRAPPED(&)/' >"$dir/wrapped.h"
echo "Libs: -L\${libdir} -lpostern_static -pthread -Wl,--eh-frame-hdr $(echo "$wrapped" | sed 's/^/-Wl,--wrap=/' | tr '\n' ' ')" \
	>"$dir/wrap.txt"
