#!/bin/bash
# pathspec 1.1.1, GitIgnoreSpec: sets in brackets that git reads one way, it reads in another. Run it on any machine with
# Python >= 3.11 and git; it leaves nothing behind.
# Exit 0: the behaviour is as described here. 1: it changed (the output says how). 2: it could not be tried.
#
# Versions: pathspec 1.1.1, google-re2 1.1.20251105; git as it is installed (seen with 2.39.5).
#
# What happens. gitignore(5) takes the sets of fnmatch(3), with POSIX classes, and a backslash quotes inside of a set too.
# pathspec copies a set into its regular expression as it stands:
#
#   1. `[[:digit:]]*.log`: git ignores 7a.log. pathspec ends the set at the first `]`: it matches neither 7a.log nor what
#      git matches, and says nothing. With backend "re2" the same holds, where the pattern compiles at all:
#   2. `[[:digit:]]x` with backend "re2" raises re2's own Error at from_lines, which is no ValueError and no re.error.
#   3. `[a\]b]`: git takes it for a set of three characters, so that it matches "a" and "]". pathspec ends the set at the
#      quoted bracket and matches neither.
#
# What to do: spell classes out ([0-9]), and put `]` first in a set ([]ab]), before a pattern is handed over; refuse the
# rest.
#
# Seen:
#   pattern               name      git    simple  re2
#   [[:digit:]]*.log      7a.log    True   False   False
#   [[:digit:]]x          7x        True   False   re2._re2.Error
#   [[:alpha:]]x          hx        True   False   re2._re2.Error
#   [a\]b]                a         True   False   False
#   [a\]b]                ]         True   False   False
#   [0-9]*.log            7a.log    True   True    True
#   []ab]                 ]         True   True    True
set -u
command -v git > /dev/null || exit 2
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
    pathspec==1.1.1 google-re2==1.1.20251105 || exit 2
git init -q "$folder/repository" || exit 2

cat > "$folder/shown.py" <<'PYTHON'
import subprocess
import sys
import warnings
from pathlib import Path

from pathspec import GitIgnoreSpec

warnings.simplefilter("ignore")
REPOSITORY = Path(sys.argv[1])
CASES = {
    ("[[:digit:]]*.log", "7a.log"): ("True", "False", "False"),
    ("[[:digit:]]x", "7x"): ("True", "False", "re2._re2.Error"),
    ("[[:alpha:]]x", "hx"): ("True", "False", "re2._re2.Error"),
    ("[a\\]b]", "a"): ("True", "False", "False"),
    ("[a\\]b]", "]"): ("True", "False", "False"),
    ("[0-9]*.log", "7a.log"): ("True", "True", "True"),
    ("[]ab]", "]"): ("True", "True", "True"),
}


def asked_git(pattern, name):
    (REPOSITORY / ".gitignore").write_text(pattern + "\n")
    words = ["git", "-C", REPOSITORY, "check-ignore", "-q", "--no-index", name]
    return str(subprocess.run(words).returncode == 0)


def asked_pathspec(pattern, name, backend):
    try:
        return str(GitIgnoreSpec.from_lines([pattern], backend=backend).match_file(name))
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}"


changed = False
print(f"{'pattern':22}{'name':10}{'git':7}{'simple':8}re2")
for (pattern, name), expected in CASES.items():
    found = (asked_git(pattern, name), *(asked_pathspec(pattern, name, backend) for backend in ("simple", "re2")))
    changed = changed or found != expected
    print(f"{pattern:22}{name:10}{found[0]:7}{found[1]:8}{found[2]}{'' if found == expected else '   CHANGED'}")
sys.exit(changed)
PYTHON
"$folder/venv/bin/python" "$folder/shown.py" "$folder/repository"
