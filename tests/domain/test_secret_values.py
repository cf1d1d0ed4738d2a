"""What looks like a secret in a target, what does not, and what is shown in its place."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.domain.secret_values import MASK, hide, masked, references_in, secrets_in, words_to_hide

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ({"env": {"API_TOKEN": "abc"}}, "env.API_TOKEN"),
        ({"env": {"PGPASSWORD": "abc"}}, "env.PGPASSWORD"),
        ({"env": {"dbPassword": "abc"}}, "env.dbPassword"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "abc"}}, "env.AWS_SECRET_ACCESS_KEY"),
        ({"env": {"MYSQL_PWD": "abc"}}, "env.MYSQL_PWD"),
        ({"env": {"SECRET_1": "1234"}}, "env.SECRET_1"),
        ({"env": {"X": "AKIA" + "ABCDEFGHIJKLMNOP"}}, "env.X"),
        ({"env": {"X": "ghp_" + "a" * 36}}, "env.X"),
        ({"env": {"X": JWT}}, "env.X"),
        ({"env": {"X": "-----BEGIN EC PRIVATE KEY-----\nabc"}}, "env.X"),
        ({"env": {"DATABASE": "postgres://ann:hunter2@db/x"}}, "env.DATABASE"),
        ({"env": {"file": "ghp_" + "a" * 36}}, "env.file"),
        ({"argv": ["curl", "-H", "Authorization: Bearer abcdefgh12"]}, "argv[2]"),
        ({"argv": ["curl", "-H", "X-Api-Key: abcdefgh"]}, "argv[2]"),
        ({"argv": ["deploy", "--password=hunter2"]}, "argv[1]"),
        ({"argv": ["deploy", "--api-key", "hunter2"]}, "argv[2]"),
        ({"argv": ["sh", "-c", "TOKEN=hunter2 deploy"]}, "argv[2]"),
        ({"ready": {"type": "http", "url": "https://h/ready?access_token=hunter2"}}, "ready.url"),
        ({"secret": "hunter2", "url": "https://h"}, "secret"),
        ({"headers": {"Authorization": "hunter2"}}, "headers.Authorization"),
        ({"env": {"A": MASK}}, "env.A"),
    ],
)
def test_what_looks_like_a_secret_is_found_and_masked(target: dict[str, Any], field: str) -> None:
    assert secrets_in(target) == [field]
    shown = masked(target)
    assert secrets_in(shown) == [field]
    assert MASK in str(shown)
    for word in ("hunter2", "abc", "ghp_", "AKIA", JWT):
        assert word not in str(shown)


@pytest.mark.parametrize(
    "target",
    [
        {"env": {"API_TOKEN": {"env": "API_TOKEN"}, "PGPASSWORD": {"file": "/run/secrets/pg"}}, "argv": ["true"]},
        {"secret": {"file": "/run/secrets/hook"}, "headers": {"Authorization": {"env": "HOOK"}}},
        {"env": {"TOKEN_FILE": "/run/secrets/t", "AWS_ACCESS_KEY_ID": "x", "TOKENIZERS_PARALLELISM": "false"}},
        {"env": {"PWD": "/srv", "AUTHOR": "ann", "KEYBOARD": "de", "MONKEY": "1", "SECRETS_ENABLED": "true"}},
        {"env": {"API_TOKEN": "", "PASSWORD": "$PASSWORD", "DATABASE": "postgres://ann@db/x"}},
        {"argv": ["sh", "-c", 'deploy --token "$TOKEN" --password=$PASSWORD']},
        {"argv": ["systemctl", "restart", "token-service"], "cwd": "/srv/secrets"},
        {"argv": ["deploy", "--token-file", "/run/secrets/t", "--no-password"]},
        {"ready": {"type": "http", "url": "http://127.0.0.1:80/ready?x=1"}, "grace": "5s"},
        {"delay": "1s", "ledger": "/srv/ledger.ndjson", "fail_first": 3},
    ],
)
def test_references_and_plain_words_are_let_through_and_shown(target: dict[str, Any]) -> None:
    assert secrets_in(target) == []
    assert masked(target) == target


def test_references_are_found_wherever_they_stand() -> None:
    target = {
        "secret": {"file": "/run/hook"},
        "headers": {"Authorization": {"env": "HOOK"}},
        "env": {"A": {"env": "B"}, "PLAIN": "x"},
        "notify": [{"token": {"env": "C"}}],
    }
    found = [("file", "/run/hook"), ("env", "HOOK"), ("env", "B"), ("env", "C")]
    assert references_in(target) == found
    assert references_in({"env": {"env": "the variable env"}}) == []


@pytest.mark.parametrize(
    ("value", "text", "shown"),
    [
        ("hunter2", "it is hunter2, hunter2!", "it is ***, ***!"),
        ("first line\nsecond line\n", "got second line", "got ***"),
        ("with 'quotes'\tinside", repr(KeyError("with 'quotes'\tinside")), 'KeyError("***")'),
        ("gr\xfc\xdfe-geheim", ascii("gr\xfc\xdfe-geheim"), "'***'"),
        ("abc", "abc is too short to be one", "abc is too short to be one"),
        ("", "nothing", "nothing"),
    ],
)
def test_values_are_hidden_as_they_are_and_as_python_spells_them(value: str, text: str, shown: str) -> None:
    assert hide(text, words_to_hide([value])) == shown


def test_of_values_in_each_other_the_longest_is_hidden_first() -> None:
    assert hide("secret-and-more secret", words_to_hide(["secret", "secret-and-more"])) == "*** ***"
