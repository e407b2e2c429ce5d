#!/usr/bin/env python3
"""Functions that are not called in this project, and limits on the size of files.

Usage: check_banned.py ROOT.  A header has at most 180 lines, a .c file at most 700: longer ones hold
more than one idea.  (Function length and nesting are clang-tidy's.)
"""
import pathlib
import re
import sys

BANNED = ("strcpy strcat strncpy strncat sprintf vsprintf gets strtok atoi atol sscanf alloca "
          "system popen rand tmpnam strerror localtime gmtime").split()
CALL = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)
FOLDERS = ["base", "http", "acl", "auth", "audit", "conf", "gateway", "sampler", "profile", "cli",
           "examples", "tests"]
LINES_MAX = {".h": 180, ".c": 700}
TEST_LINES_MAX = 1200


def blank(match):
    return "\n" * match.group(0).count("\n")


def main():
    root = pathlib.Path(sys.argv[1])
    bad = files = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            files += 1
            text = path.read_text()
            limit = TEST_LINES_MAX if folder == "tests" else LINES_MAX[path.suffix]
            lines = text.count("\n")
            if lines > limit:
                print(f"{path.relative_to(root)}: {lines} lines, more than {limit}")
                bad += 1
            for number, line in enumerate(COMMENT.sub(blank, text).splitlines(), 1):
                for match in CALL.finditer(line):
                    print(f"{path.relative_to(root)}:{number}: {match.group(1)}() is banned")
                    bad += 1
    print(f"{files} files, {bad} complaints")
    return 1 if bad or not files else 0


if __name__ == "__main__":
    sys.exit(main())
