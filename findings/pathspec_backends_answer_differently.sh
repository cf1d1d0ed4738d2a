#!/bin/bash
# pathspec 1.1.1: the same list of gitignore patterns ignores a file or not, by which backend matches it. Run it on any
# machine with Python >= 3.11 and git; it leaves nothing behind.
# Exit 0: the behaviour is as described here. 1: it changed (the output says how). 2: it could not be tried.
#
# Versions: pathspec 1.1.1, google-re2 1.1.20251105; git as it is installed (seen with 2.39.5).
#
# What happens. GitIgnoreSpec chooses its backend by itself (re2 or hyperscan where they are installed, else "simple"),
# so that installing google-re2 for something else changes answers. In a list with a `!` pattern, "simple" lets a pattern
# that re-includes the file itself win over a later one that ignores a folder above it. "re2" takes the last pattern that
# matches. git ignores everything below an ignored folder, so in these cases it agrees with re2.
#
# Of 40,000 lists of two or three patterns made at random (seed 3) from a, b, a*, * and **, with `!`, a leading and a
# closing slash, and paths of one to three names, the two backends differ in 540.
#
# What to do: name the backend, and the same one everywhere.
#
# Seen:
#   patterns              path      git    simple  re2
#   !**   **/a*/          ab/a      True   False   True
#   !*    */b             b/b/a     True   False   True
#   !a/** **/a/           a/ab      True   False   True
#   !b/b  !/a*/**  */b    a/b/ab    True   False   True
#   540 of 40000 differ
set -u
command -v git > /dev/null || exit 2
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
    pathspec==1.1.1 google-re2==1.1.20251105 || exit 2
git init -q "$folder/repository" || exit 2

cat > "$folder/shown.py" <<'PYTHON'
import random
import subprocess
import sys
from pathlib import Path

from pathspec import GitIgnoreSpec

REPOSITORY = Path(sys.argv[1])
CASES = [
    (["!**", "**/a*/"], "ab/a"),
    (["!*", "*/b"], "b/b/a"),
    (["!a/**", "**/a/"], "a/ab"),
    (["!b/b", "!/a*/**", "*/b"], "a/b/ab"),
]
EXPECTED, DIFFER = (True, False, True), 540


def asked_git(patterns, path):
    (REPOSITORY / ".gitignore").write_text("\n".join(patterns) + "\n")
    words = ["git", "-C", REPOSITORY, "check-ignore", "-q", "--no-index", path]
    return subprocess.run(words).returncode == 0


def asked(patterns, path, backend):
    return GitIgnoreSpec.from_lines(patterns, backend=backend).match_file(path)


def drawn(chance):
    patterns = [
        ("!" if chance.random() < 0.4 else "")
        + ("/" if chance.random() < 0.2 else "")
        + "/".join(chance.choice(["a", "b", "*", "a*", "**"]) for _ in range(chance.randint(1, 2)))
        + ("/" if chance.random() < 0.3 else "")
        for _ in range(chance.randint(2, 3))
    ]
    return patterns, "/".join(chance.choice(["a", "b", "ab"]) for _ in range(chance.randint(1, 3)))


changed = False
print(f"{'patterns':22}{'path':10}{'git':7}{'simple':8}re2")
for patterns, path in CASES:
    found = (asked_git(patterns, path), asked(patterns, path, "simple"), asked(patterns, path, "re2"))
    changed = changed or found != EXPECTED
    words = "  ".join(patterns)
    print(f"{words:22}{path:10}{found[0]!s:7}{found[1]!s:8}{found[2]}{'' if found == EXPECTED else '   CHANGED'}")
chance = random.Random(3)
lists = [drawn(chance) for _ in range(40_000)]
differ = sum(asked(patterns, path, "simple") != asked(patterns, path, "re2") for patterns, path in lists)
print(f"{differ} of {len(lists)} differ")
sys.exit(changed or differ != DIFFER)
PYTHON
"$folder/venv/bin/python" "$folder/shown.py" "$folder/repository"
