"""Why a path of a watched folder is a write, or is none: the rule that decides, as the watcher reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InvalidInput
from orchestrator.sources.git_rules import RULES_FILE, outer_files, read_rules, users_file
from orchestrator.sources.gitignore import Rule
from orchestrator.sources.ignores import Ignores, folders_above, folders_inside, includes_of
from orchestrator.sources.links import leading_out


@dataclass(frozen=True, slots=True)
class Explanation:
    """``path`` is relative to the folder. ``rule`` decided, None where none speaks; ``entry`` is what it matched."""

    path: str
    watched: bool
    rule: Rule | None
    entry: str
    leads_out: bool

    def sentence(self) -> str:
        """Return it in words, for a person."""
        if self.rule is None:
            why = "no rule names it"
        else:
            at = f"{self.rule.source}:{self.rule.line}" if os.path.isabs(self.rule.source) else self.rule.source
            why = f"{at}: {self.rule.text}" + (f" (matches {self.entry}/)" if self.entry != self.path else "")
        link = "; it is a link that leads out: what it names is not watched" if self.leads_out and self.watched else ""
        return f"{self.path}: {'watched' if self.watched else 'ignored'}: {why}{link}"


def explain(directory: Path, path: str, *, ignore: Sequence[Path] = (), include: Sequence[str] = ()) -> Explanation:
    """Explain one path, absolute or relative to ``directory``; with a ``/`` at its end it is taken for a folder.

    Raises ``InvalidInput`` for one outside.
    """
    root = os.path.abspath(directory)
    if not os.path.isdir(root):
        raise InvalidInput(f"{str(directory)!r} is not a folder; name the watched one", field="watch")
    full = os.path.normpath(os.path.join(root, path))
    inside = os.path.relpath(full, root)
    if inside in {".", ".."} or inside.startswith("../"):
        raise InvalidInput(f"--explain: {path!r} is not below {root}; name a file in it", field="explain")
    is_directory = path.endswith("/") or (os.path.isdir(full) and not os.path.islink(full))
    above = folders_above(inside)
    rules = {folder: read_rules(os.path.join(root, folder, RULES_FILE)) for folder in above}
    outer = outer_files(root, users_file(root)).read()
    ignores = Ignores(folders_inside(root, ignore), outer, includes_of(include), rules)
    found = ignores.why(inside, directory=is_directory)
    if found is not None:
        return Explanation(inside, watched=False, rule=found[0], entry=found[1], leads_out=False)
    speaks = ignores.included(inside, directory=is_directory) or ignores.rule_for(inside, directory=is_directory)
    leads_out = os.path.islink(full) and bool(leading_out(root, [inside]))
    return Explanation(inside, watched=True, rule=speaks, entry=inside, leads_out=leads_out)
