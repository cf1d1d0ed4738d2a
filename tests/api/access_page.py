"""Write the table of who may call what into docs/security.md: ``python -m tests.api.access_page``."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from orchestrator.api.access_table import Operation, in_markdown, operations
from orchestrator.api.app import create_app
from orchestrator.bootstrap import open_services
from orchestrator.settings import load_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
_TABLE = re.compile(r"(?<=<!-- table of access -->\n).*?(?=<!-- end of the table -->)", re.DOTALL)


def listed() -> list[Operation]:
    """Return the operations of the API as it is; the database that it is made over is never asked."""
    with tempfile.TemporaryDirectory() as folder:
        services = open_services(load_settings({}, database_url=f"sqlite:///{folder}/none.db"))
        try:
            return operations(create_app(services))
        finally:
            services.store.close()


def table() -> str:
    """Return the table as it is."""
    return in_markdown(listed())


def shown() -> str:
    """Return the table that the page shows. Raises ``LookupError`` where it has no place for one."""
    found = _TABLE.search(PAGE.read_text())
    if found is None:
        raise LookupError(f"{PAGE} has no lines that begin and end the table of access")
    return found[0]


def write() -> None:
    """Put the table as it is in the place of the one that is shown."""
    shown()
    PAGE.write_text(_TABLE.sub(lambda _: table(), PAGE.read_text()))


if __name__ == "__main__":
    write()
