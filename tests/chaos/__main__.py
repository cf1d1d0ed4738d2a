"""Break the processes of production for a while, heal them, judge them. The last line is a summary; exit 1 at any
violation."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos.campaign import Campaign
from tests.chaos.faults import Fault, broker_away_for_a_minute
from tests.chaos.machine_faults import full_disk, older_worker
from tests.chaos.production import ChaosProduction, own_servers
from tests.chaos.report import Report, plain, report_of, summary_of
from tests.chaos.small_disk import NoSmallDisk, SmallDisk, small_disk
from tests.previous_version import NoHistory, check_out_previous
from tests.servers.brokers import BROKERS, why_no_rabbitmq
from tests.servers.programs import MissingServer
from tests.servers.redis import RedisServer
from tests.system.deployment import running
from tests.system.fork_server import ForkServer

_LONG_FROM_MINUTES = 5
"""From here on there is time for a fault that lasts a minute."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to go on (2)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="which faults, in which order")
    parser.add_argument("--broker", choices=BROKERS, default=RedisServer.name, help="which one is broken (redis)")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    wanted = parser.parse_args()
    say(f"seed {wanted.seed}, {wanted.minutes:g} minutes, {wanted.broker}")
    try:
        report = chaos(wanted.seed, wanted.minutes, wanted.broker)
    except MissingServer as missing:
        say(str(missing))
        return 2
    if wanted.json:
        wanted.json.write_bytes(plain(report))
    for problem in report.violations:
        say(f"VIOLATION: {problem}")
    for reason in report.not_run:
        say(f"not run: {reason}")
    sys.stdout.write(summary_of(report) + "\n")
    return 1 if report.violations else 0


def chaos(seed: int, minutes: float, broker: str) -> Report:
    """Run a campaign on servers and processes of its own, and leave nothing of them behind.

    Raises ``MissingServer`` where the broker is not installed.
    """
    without = why_no_rabbitmq(os.environ)
    not_run = [f"RabbitMQ: {without}"] if without else []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="chaos-")))
        folder.chmod(0o755)  # the database on the small disk runs as another user than root
        forks = ForkServer()
        stack.callback(forks.close)
        more: dict[str, Fault] = {}
        if minutes >= _LONG_FROM_MINUTES:
            more[f"{broker} stopped for a minute"] = Fault("broker", broker_away_for_a_minute)
        disk = _disk(stack, folder / "disk", not_run)
        if disk is not None:
            more["postgres on a full disk"] = full_disk(disk)
        servers = stack.enter_context(own_servers(disk, broker=broker))
        production = ChaosProduction(folder, servers, forks=forks)
        try:
            more["an older worker"] = older_worker(check_out_previous(folder / "older"))
        except NoHistory as reason:
            not_run.append(f"an older worker: {reason}")
        stack.enter_context(running(production))
        campaign = Campaign(production, seed=seed, say=say, more=more)
        campaign.run(minutes=minutes)
        return report_of(campaign, production, seed=seed, minutes=minutes, not_run=not_run)


def _disk(stack: ExitStack, folder: Path, not_run: list[str]) -> SmallDisk | None:
    try:
        return stack.enter_context(small_disk(folder))
    except NoSmallDisk as reason:
        not_run.append(f"a full disk: {reason}")
        return None


def say(text: str) -> None:
    """Tell a person how it goes."""
    sys.stderr.write(f"chaos: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
