"""What must hold in every run, read from its log: a fast wrong answer is worth nothing."""

from __future__ import annotations

import os
import subprocess

from bench.figures import Gate
from bench.log_facts import count, coverage, cycles, rows
from bench.products import Product


def all_acknowledged(part: str, product: Product, acknowledged: int) -> Gate:
    """Compare how many writes were answered 202 with how many the log has."""
    stored = count(product.database_url, "FileWritten")
    what = f"every write of {product.build.name} that was answered 202 is in the log, once"
    return Gate(
        part=part,
        what=what,
        store=product.store,
        holds=stored == acknowledged,
        found=f"{stored:,} stored, {acknowledged:,} acknowledged",
    )


def verified(part: str, product: Product) -> Gate:
    """Let the build's own independent verifier read its log."""
    ran = subprocess.run(
        [str(product.build.orchestrator), "audit", "verify", "--database-url", product.database_url],
        cwd=product.folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")},
        capture_output=True,
        text=True,
        check=False,
    )
    last = (ran.stdout.strip() or ran.stderr.strip()).splitlines()[-1:] or ["nothing"]
    what = f"`audit verify` finds the log of {product.build.name} sound"
    return Gate(part=part, what=what, store=product.store, holds=ran.returncode == 0, found=last[0][:160])


def one_restart_each(part: str, product: Product, *, restarts: int) -> list[Gate]:
    """Count restarts, overlaps and what they cover: the ideal number, none, every write named once."""
    ended, overlaps = cycles(product.database_url)
    named = coverage(product.database_url, ended)
    queued = int(rows(product.database_url, "SELECT count(*) FROM restarts")[0][0])
    name, store = product.build.name, product.store
    whole = named.once == named.writes
    said = f"{named.once:,} of {named.writes:,} once, {named.never:,} never, {named.more_often:,} more often"
    return [
        Gate(
            part=part,
            what=f"{name} restarts {restarts:,} times and no more",
            store=store,
            holds=queued == len(ended) == restarts,
            found=f"{queued:,} queued, {len(ended):,} ended well",
        ),
        Gate(part=part, what=f"{name} overlaps no two", store=store, holds=overlaps == 0, found=f"{overlaps} overlaps"),
        Gate(part=part, what=f"{name} names every write by exactly one restart", store=store, holds=whole, found=said),
    ]
