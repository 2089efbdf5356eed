"""``nas token``: what it prints, and what opens a service afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.store import Store
from nas.tokens import Scope, TokenKind

Nas = Callable[..., tuple[int, str, str]]


def test_the_life_of_a_token(nas: Nas, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'nas.db'}"
    code, out, err = nas("token", "create", "alice", "--scope", "write", "--database", database)
    assert code == 0, err
    assert re.fullmatch(r"nas_[\w-]{43}\n", out)  # the secret alone, for $(...)
    assert "not shown again" in err
    _, listed, _ = nas("token", "list", "--database", database)
    assert "alice" in listed
    assert "valid" in listed
    assert out.strip() not in listed
    _, text, _ = nas("token", "list", "--json", "--database", database)
    (entry,) = json.loads(text)["tokens"]
    assert (entry["name"], entry["scope"], entry["kind"]) == ("alice", "write", "token")
    assert "secret" not in entry
    with Store.open(database) as store:
        assert store.identify(out.strip(), TokenKind.TOKEN) is not None
        code, _, err = nas("token", "revoke", "alice", "--database", database)
        assert (code, err) == (0, "alice is revoked\n")
        assert store.identify(out.strip(), TokenKind.TOKEN) is None
    assert "revoked 20" in nas("token", "list", "--database", database)[1]


def test_a_link_opens_one_browser_in_the_name_of_a_token(nas: Nas, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'nas.db'}"
    made = nas("token", "create", "alice", "--days", "2", "--json", "--database", database)[1]
    assert json.loads(made)["secret"].startswith("nas_")
    address = nas("token", "link", "--token", "alice", "--url", "https://x.example/nas/", "--database", database)[1]
    found = re.fullmatch(r"https://x\.example/nas/\?link=(\S+)\n", address)
    assert found is not None
    with Store.open(database) as store:
        followed = store.follow_link(found[1])
        assert followed is not None
        assert (followed[0].owner, followed[0].scope) == ("alice", Scope.READ)
    _, listed, _ = nas("token", "list", "--all", "--database", database)
    assert "session of alice" in listed
    assert "valid until" in listed


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("create", "a b"), 2, "a token's name is up to 64"),
        (("create", "x", "--scope", "root"), 2, "'read', 'write', 'admin'"),
        (("create", "x", "--days", "0"), 2, "--days"),
        (("revoke", "x"), 2, "no token 'x'; there is none yet"),
        (("link", "--token", "x"), 2, "no token 'x'"),
        (("list",), 0, "there are no tokens yet"),
    ],
)
def test_what_cannot_be_done_is_said(
    nas: Nas, tmp_path: Path, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    database = f"sqlite:///{tmp_path / 'nas.db'}"
    Store.open(database).close()
    found, _, err = nas("token", *arguments, "--database", database)
    assert (found, expected in " ".join(err.split())) == (code, True), err


def test_files_of_tls_are_checked(nas: Nas, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    database = f"sqlite:///{tmp_path / 'nas.db'}"
    for arguments, expected in (
        (("--tls-key", "nas.key"), "works only with --tls-certificate"),
        (("--tls-certificate", str(tmp_path / "none.pem")), "No such file"),
        (("--tls-certificate", str(tmp_path / "bad.pem")), "must be PEM files"),
    ):
        code, _, err = nas("serve", *arguments, "--database", database)
        assert (code, expected in err) == (2, True), err
