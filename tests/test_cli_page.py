"""docs/cli.md names every command, and no option that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.test_reading import COMMANDS, options_of

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "cli.md").read_text()


def test_every_command_is_on_the_page() -> None:
    missing = [name for name in COMMANDS if not re.search(rf"\b{name.split()[-1]}\b", PAGE)]
    assert missing == []


def test_every_option_on_the_page_is_one_of_a_command() -> None:
    options = {option for command in COMMANDS.values() for option in options_of(command)}
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", PAGE))
    assert named - options - {"--help"} == set()
