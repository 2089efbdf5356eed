"""Tokens, links and sessions in both databases."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select

from nas.errors import ConflictError, InputError, LimitError, NotFoundError
from nas.store import Store
from nas.store.tables import TokenTable
from nas.tokens import ENVIRONMENT_NAME, Scope, TokenKind, digest, new_secret, slow_digest
from tests.nas.store.makers import definition as make_definition

TOKEN, SESSION = TokenKind.TOKEN, TokenKind.SESSION


def test_a_token_is_found_by_its_secret_alone_which_is_not_stored(store: Store) -> None:
    made, secret = store.create_token("alice", Scope.WRITE)
    found = store.identify(secret, TOKEN)
    assert found is not None
    assert (found.id, found.name, found.owner, found.scope) == (made.id, "alice", "alice", Scope.WRITE)
    for wrong in (secret[:-1], secret + "x", "", digest(secret), "alice", made.id):
        assert store.identify(wrong, TOKEN) is None
    assert store.identify(secret, SESSION) is None
    with store._database.engine.connect() as connection:
        stored = [str(value) for row in connection.execute(select(TokenTable.__table__)) for value in row]
    assert digest(secret) in stored
    assert not any(secret in value for value in stored)


def test_secrets_differ_and_hold_256_bits() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == len("nas_") + 43 for secret in made)


def test_revocation_ends_a_token_and_its_sessions(store: Store) -> None:
    made, secret = store.create_token("alice", Scope.READ)
    session, cookie = store.open_session(made)
    assert (session.owner, session.scope) == ("alice", Scope.READ)
    assert store.identify(cookie, SESSION) is not None
    assert [token.sessions for token in store.tokens()] == [1]
    assert store.revoke_token("alice").revoked_at is not None
    assert store.identify(secret, TOKEN) is None
    assert store.identify(cookie, SESSION) is None
    with pytest.raises(ConflictError, match="revoked"):
        store.create_link(token="alice")
    with pytest.raises(ConflictError, match="and was revoked"):
        store.create_token("Alice", Scope.READ)


def test_a_session_ends_alone(store: Store) -> None:
    made, secret = store.create_token("alice", Scope.READ)
    first, cookie = store.open_session(made)
    _, other = store.open_session(made)
    store.revoke_token(first.id)
    assert store.identify(cookie, SESSION) is None
    assert store.identify(other, SESSION) is not None
    assert store.identify(secret, TOKEN) is not None


def test_what_has_expired_opens_nothing_and_is_forgotten(store: Store) -> None:
    made, secret = store.create_token("alice", Scope.READ, seconds=-1)
    _, cookie = store.open_session(made, seconds=-1)
    link = store.create_link(seconds=-1)
    assert store.identify(secret, TOKEN) is None
    assert store.identify(cookie, SESSION) is None
    assert store.follow_link(link) is None
    store.create_link()
    assert [token.kind for token in store.tokens(everything=True)] == [TokenKind.LINK, TOKEN]


def test_a_session_ends_with_its_expired_token(store: Store) -> None:
    made, _ = store.create_token("alice", Scope.READ, seconds=-1)
    _, cookie = store.open_session(made)
    assert store.identify(cookie, SESSION) is None


def test_a_link_works_once_even_if_many_follow_it_together(store: Store) -> None:
    link = store.create_link()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(store.follow_link(link))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (session,) = [answer for answer in answers if answer is not None]
    assert store.identify(session[1], SESSION) == session[0]
    assert session[0].scope is Scope.ADMIN
    assert store.follow_link(link) is None
    assert store.identify(link, SESSION) is None


def test_a_link_acts_in_the_name_of_a_token(store: Store) -> None:
    store.create_token("alice", Scope.WRITE)
    followed = store.follow_link(store.create_link(token="alice"))
    assert followed is not None
    assert (followed[0].owner, followed[0].scope) == ("alice", Scope.WRITE)


def test_sessions_of_another_nas_token_have_ended(store: Store) -> None:
    slow = slow_digest("chosen-by-a-person")
    token = store.environment_token(slow)
    assert store.environment_token(slow) == token
    session, cookie = store.open_session(token)
    assert (session.owner, session.scope) == (ENVIRONMENT_NAME, Scope.ADMIN)
    assert store.identify(cookie, SESSION, slow) is not None
    assert store.identify(cookie, SESSION, slow_digest("another one of them")) is None
    assert store.identify(cookie, SESSION) is None
    with pytest.raises(ConflictError, match="NAS_TOKEN"):
        store.revoke_token(token.name)


@pytest.mark.parametrize("name", ["", "a b", "<b>", "x" * 65, "session-1", "NAS_TOKEN", "link-2", "-x", "ü"])
def test_names_that_no_token_may_have(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="token"):
        store.create_token(name, Scope.READ)


def test_an_unknown_name_lists_those_there_are(store: Store) -> None:
    with pytest.raises(NotFoundError, match="none yet"):
        store.revoke_token("alice")
    store.create_token("bob", Scope.READ)
    with pytest.raises(NotFoundError, match="there are bob"):
        store.revoke_token("alice")


def test_scopes_include_the_weaker_ones() -> None:
    allowed = [[scope.allows(needed) for needed in Scope] for scope in Scope]
    assert allowed == [[True, False, False], [True, True, False], [True, True, True]]


def test_studies_record_who_created_them_and_searches_are_limited(store: Store) -> None:
    definition = make_definition()
    alice = store.acting("alice", searches=2)
    first, _ = alice.submit_study(definition, {"top1": 0.0})
    assert (first.created_by, store.study(first.id).created_by) == ("alice", "alice")
    assert store.submit_study(definition, {"top1": 0.0})[0].created_by is None
    alice.submit_study(definition, {"top1": 0.0})
    store.acting("bob", searches=2).submit_study(definition, {"top1": 0.0})
    with pytest.raises(LimitError, match="alice: 2 of its studies wait or run"):
        alice.submit_study(definition, {"top1": 0.0})
    assert len(store.studies()) == 4
    alice.pause(first.id)
    alice.submit_study(definition, {"top1": 0.0})
    with pytest.raises(LimitError, match="stop one"):
        alice.resume(first.id)
