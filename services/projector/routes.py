"""The calls of the read API, one view each."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from flask import Blueprint, Response, current_app, request

from schemas import openapi
from schemas.fields import ID
from schemas.problems import Problem, malformed
from schemas.times import Clock
from services.projector import access, answers, histories, key_uses, parameters, quarantined_uses, refused_uses
from services.projector.access import Caller
from services.projector.callers import Callers
from services.projector.key_uses import Whose
from services.projector.parameters import Parameters
from services.projector.reads import Reads, State, View
from services.projector.status import StatusFile

routes: Final = Blueprint("reads", __name__)
_ID: Final = re.compile(ID)
_ONE: Final = ("min_revision",)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the calls work with. `notary_keys` is the file of public keys that checkpoints are verified with."""

    reads: Reads
    callers: Callers
    status: StatusFile
    clock: Clock
    notary_keys: Path | None = None


@routes.get("/v1/orgs")
def orgs() -> Response:
    """All organisations, for operators."""
    caller = _caller()
    access.must_be_operator(caller)
    query = _query(parameters.PAGE)
    with _view(caller.org_id, query, any_org=True) as view:
        return answer(answers.listed(view.lists.orgs(query), answers.org), view.state)


@routes.get("/v1/orgs/<org>")
def org(org: str) -> Response:
    """An organisation, with the counts unless those are excluded; members see none."""
    caller = _caller(org)
    access.must_belong(caller, org)
    query = _query(parameters.ORG)
    with _view(org, query) as view:
        return answer(answers.org(view.org(org, query.counts and caller.sees_all_of(org))), view.state)


@routes.get("/v1/orgs/<org>/keys")
def org_keys(org: str) -> Response:
    """The keys of an organisation."""
    with all_of(org, parameters.KEYS) as (view, query):
        return answer(answers.listed(view.lists.keys(org, query), answers.key), view.state)


@routes.get("/v1/orgs/<org>/users")
def org_users(org: str) -> Response:
    """The users of an organisation."""
    with all_of(org, parameters.USERS) as (view, query):
        return answer(answers.listed(view.lists.users(org, query), answers.user), view.state)


@routes.get("/v1/orgs/<org>/history")
def org_history(org: str) -> Response:
    """Every event of an organisation, or those that are asked for."""
    with all_of(org, parameters.ORG_HISTORY) as (view, query):
        entries, next_cursor = histories.of_org(view.connection, org, query)
        return answer({"items": entries, "next_cursor": next_cursor}, view.state)


@routes.get("/v1/orgs/<org>/quarantined-uses")
def org_quarantined_uses(org: str) -> Response:
    """The uses that name an organisation and were not counted, and why."""
    with all_of(org, parameters.PAGE) as (view, query):
        page = quarantined_uses.of(view.connection, org, query)
        return answer(answers.listed(page, answers.quarantined_use), view.state)


@routes.get("/v1/quarantined-uses")
def all_quarantined_uses() -> Response:
    """All uses that were not counted, and why, for operators."""
    caller = _caller()
    access.must_be_operator(caller)
    query = _query(parameters.PAGE)
    with _view(caller.org_id, query, any_org=True) as view:
        page = quarantined_uses.of(view.connection, None, query)
        return answer(answers.listed(page, answers.quarantined_use), view.state)


@routes.get("/v1/orgs/<org>/users/<user>")
def user(org: str, user: str) -> Response:
    """A user."""
    access.must_see_user(_caller(org, user), org, user)
    with _view(org, _query(_ONE)) as view:
        return answer(answers.user(view.user(org, user)), view.state)


@routes.get("/v1/orgs/<org>/users/<user>/keys")
def user_keys(org: str, user: str) -> Response:
    """The keys of a user."""
    access.must_see_user(_caller(org, user), org, user)
    query = _query(parameters.KEYS)
    if query.owner not in (None, user):
        raise malformed("the path names another owner", ("/owner", "is not the user of the path"))
    with _view(org, query) as view:
        view.user(org, user)
        page = view.lists.keys(org, replace(query, owner=user))
        return answer(answers.listed(page, answers.key), view.state)


@routes.get("/v1/orgs/<org>/keys/<key>")
def key(org: str, key: str) -> Response:
    """A key."""
    caller = _caller(org, key)
    access.must_belong(caller, org)
    with _view(org, _query(_ONE)) as view:
        row = view.key(org, key)
        access.must_see_user(caller, org, row["user_id"])
        return answer(answers.key(row), view.state)


@routes.get("/v1/orgs/<org>/keys/<key>/history")
def key_history(org: str, key: str) -> Response:
    """What happened to a key, its uses included."""
    caller = _caller(org, key)
    access.must_belong(caller, org)
    query = _query(parameters.HISTORY)
    with _view(org, query) as view:
        access.must_see_user(caller, org, view.key(org, key)["user_id"])
        if query.void:
            access.must_see_all_of(caller, org)
        entries, next_cursor = histories.of_key(view.connection, org, key, query)
        return answer({"items": entries, "next_cursor": next_cursor}, view.state)


@routes.get("/v1/orgs/<org>/usage")
@routes.get("/v1/orgs/<org>/users/<user>/usage")
@routes.get("/v1/orgs/<org>/keys/<key>/usage")
def usage(org: str, user: str | None = None, key: str | None = None) -> Response:
    """How often the keys of an organisation or a user, or one key, were used, by hour or day and outcome."""
    with _uses_of(org, user, key, parameters.USAGE) as (view, whose, query):
        asked = key_uses.period(query, parts().clock())
        return answer(key_uses.by_step(view.connection, whose, asked), view.state)


@routes.get("/v1/orgs/<org>/refused-uses")
@routes.get("/v1/orgs/<org>/users/<user>/refused-uses")
@routes.get("/v1/orgs/<org>/keys/<key>/refused-uses")
def refused(org: str, user: str | None = None, key: str | None = None) -> Response:
    """Which of these keys were tried in vain, from where, and how often."""
    with _uses_of(org, user, key, parameters.REFUSED) as (view, whose, query):
        asked = key_uses.period(query, parts().clock())
        page = refused_uses.of(view.connection, view.people, whose, query, asked)
        return answer(answers.listed(page, answers.refused_use), view.state)


@routes.get("/v1/me")
def me() -> Response:
    """Who is calling, and its organisation, with the counts unless those are excluded."""
    caller = _caller()
    query = _query(parameters.ORG)
    with _view(caller.org_id, query) as view:
        row = view.user(caller.org_id, caller.user_id)
        shown: dict[str, Any] = {
            "user_id": caller.user_id,
            "org_id": caller.org_id,
            "role": caller.role,
            "kind": caller.kind,
        }
        shown |= {"name": row["name"], "email": row["email"]}
        if caller.key_id is not None:
            shown |= {"key_id": caller.key_id, "scopes": list(caller.scopes or ())}
        with_counts = query.counts and caller.sees_all_of(caller.org_id)
        return answer(shown | {"org": answers.org(view.org(caller.org_id, with_counts))}, view.state)


@routes.get("/healthz")
def healthz() -> Response:
    """Alive."""
    return _json({"status": "ok"})


@routes.get("/readyz")
def readyz() -> Response:
    """Whether the follower has caught up and PostgreSQL answers."""
    why = parts().status.not_ready(parts().clock())
    if why is not None:
        raise Problem(503, "not_ready", why, retry_after_s=1)
    parts().reads.check()
    return _json({"status": "ready"})


@routes.get("/metrics")
def metrics() -> Response:
    """For Prometheus."""
    return Response(parts().status.metrics(parts().clock()), content_type="text/plain; version=0.0.4; charset=utf-8")


@routes.get("/openapi.json")
def openapi_document() -> Response:
    """What can be asked, and what is answered."""
    return _json(openapi.document("Keyledger read API", answers.OPERATIONS))


def parts() -> Parts:
    """What the app was made with."""
    found: Parts = current_app.extensions["reads"]
    return found


def _caller(*ids: str) -> Caller:
    """Who asks; ids of the wrong shape exist nowhere. Raises Problem."""
    caller = parts().callers.identify(
        request.headers.get("Authorization"), request.remote_addr, request.headers.get("User-Agent")
    )
    if not all(map(_ID.fullmatch, ids)):
        raise access.not_found()
    return caller


def _query(allowed: tuple[str, ...]) -> Parameters:
    return parameters.parse(request.args.to_dict(flat=False), allowed)


@contextmanager
def _view(org: str, query: Parameters, any_org: bool = False) -> Iterator[View]:
    """The tables as `org` sees them. Only where `any_org` may the revision to wait for be another organisation's."""
    named, revision = query.min_revision or (None, 0)
    if named not in (None, org) and not any_org:
        raise malformed("min_revision names another organisation", ("/min_revision", "is of another organisation"))
    with parts().reads.view(org, (named or org, revision)) as view:
        yield view


@contextmanager
def all_of(org: str, allowed: tuple[str, ...], key: str | None = None) -> Iterator[tuple[View, Parameters]]:
    """For who sees all of an organisation: its tables, and what was asked for. To others a `key` does not exist."""
    if key is None:
        access.must_see_all_of(_caller(org), org)
    else:
        access.must_see_user(_caller(org, key), org, "")
    query = _query(allowed)
    with _view(org, query) as view:
        yield view, query


@contextmanager
def _uses_of(
    org: str, user: str | None, key: str | None, allowed: tuple[str, ...]
) -> Iterator[tuple[View, Whose, Parameters]]:
    """For who sees the uses of a user or a key that is there, or with neither all of an organisation."""
    caller = _caller(*(id_ for id_ in (org, user, key) if id_ is not None))
    access.must_belong(caller, org)
    if user is not None:
        access.must_see_user(caller, org, user)
    elif key is None:
        access.must_see_all_of(caller, org)
    query = _query(allowed)
    with _view(org, query) as view:
        if user is not None:
            view.user(org, user)
        elif key is not None:
            access.must_see_user(caller, org, view.key(org, key)["user_id"])
        yield view, Whose(org, user, key), query


def answer(body: Mapping[str, Any], state: State) -> Response:
    """A document, and what it stands on."""
    return stamped(_json(body), state)


def stamped(response: Response, state: State) -> Response:
    """The response with what it stands on in its headers."""
    response.headers["Keyledger-Revision"] = f"{state.org_id}:{state.revision}"
    if state.as_of_ms is not None:
        response.headers["Keyledger-Lag-Ms"] = str(max(0, parts().clock() - state.as_of_ms))
    if state.halt_why is not None:
        response.headers["Keyledger-Halted"] = state.halt_why
    return response


def _json(body: Mapping[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), content_type="application/json")
