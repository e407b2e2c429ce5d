#!/usr/bin/env python3
"""Who may include whom: the table of docs/architecture.md, enforced.

Usage: check_includes.py ROOT.  Prints every include that breaks the table; exit 1 if any.
"""
import pathlib
import re
import sys

# folder -> (folders of ours it may include, libraries it may include by the first path part or name)
MAY_USE = {
    "base": ([], []),
    "http": (["base"], []),
    "acl": (["base"], []),
    "auth": (["base"], ["jwt.h", "openssl", "jansson.h"]),
    "audit": (["base"], ["openssl", "jansson.h"]),
    "conf": (["base", "acl", "auth"], ["libconfig.h"]),
    "gateway": (["base", "http", "acl", "auth", "audit", "conf", "sampler/postern.h"],
                ["event2", "openssl", "jansson.h", "seccomp.h"]),
    "sampler": (["base", "http"], ["zlib.h"]),
    "profile": (["base"], ["protobuf-c", "zlib.h", "profile.pb-c.h"]),
    "cli": (["base", "http", "acl", "auth", "audit", "conf", "profile"],
            ["openssl", "curl", "jansson.h"]),
    "examples": (["sampler/postern.h"], ["event2", "sqlite3.h"]),
    "tests": (["base", "http", "acl", "auth", "audit", "conf", "gateway", "sampler", "profile",
               "cli", "examples", "tests"],
              ["cmocka.h", "openssl", "jansson.h", "jwt.h", "event2", "zlib.h", "libconfig.h",
               "sqlite3.h", "unit.h"]),
}
# The rooms of sampler/, each of which may include those before it and itself; what lies in the folder
# itself may include all.
SAMPLER_ROOMS = ["memory", "proc", "unwind", "store", "names", "collect", "write", "hooks", "serve", "lines"]
# lines/ is a program of its own: what it is linked with is never in the host.
LINES_LIBRARIES = ["elfutils", "dwarf.h", "libiberty", "seccomp.h"]
# What a room before may include nevertheless: what is in them is only numbers and text.
SAMPLER_OPEN = ["sampler/postern.h", "sampler/settings.h"]
LIBRARIES = {lib for _, libs in MAY_USE.values() for lib in libs} | set(LINES_LIBRARIES)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def room_of(parts):
    """A file's room in sampler/: its place in the order, or None."""
    return SAMPLER_ROOMS.index(parts[1]) if len(parts) > 2 and parts[1] in SAMPLER_ROOMS else None


def breaks_rooms(path, name):
    """Does this include reach from a room of sampler/ into a later one?"""
    room, wanted = room_of(path.parts), room_of(pathlib.PurePath(name).parts)
    if room is None or name in SAMPLER_OPEN:
        return False
    return wanted is None or wanted > room


def complaints(path, folder, line):
    match = INCLUDE.match(line)
    if not match:
        return None
    name = match.group(2)
    first = name.split("/")[0]
    ours, libraries = MAY_USE[folder]
    if path.parts[:2] == ("sampler", "lines"):
        libraries = LINES_LIBRARIES
    if first in MAY_USE:
        if first == folder == "sampler" and breaks_rooms(path, name):
            return f"{path.parent} may not include {name}"
        if first == folder or first in ours or name in ours:
            return None
        return f"{folder}/ may not include {name}"
    if match.group(1) == '"' and first not in LIBRARIES and name not in LIBRARIES:
        return f'"{name}": write the path from the top of the tree'
    if (first in LIBRARIES or name in LIBRARIES) and first not in libraries and name not in libraries:
        return f"{folder}/ may not use the library of <{name}>"
    return None


def main():
    root = pathlib.Path(sys.argv[1])
    bad = files = 0
    for folder in MAY_USE:
        for path in sorted((root / folder).rglob("*.[ch]")):
            files += 1
            for number, line in enumerate(path.read_text().splitlines(), 1):
                said = complaints(path.relative_to(root), folder, line)
                if said:
                    print(f"{path.relative_to(root)}:{number}: {said}")
                    bad += 1
    print(f"{files} files, {bad} includes that break the table of docs/architecture.md")
    return 1 if bad or not files else 0


if __name__ == "__main__":
    sys.exit(main())
