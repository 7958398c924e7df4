"""Token introspection, RFC 7662, on the same decision as every door: a form goes in, a description of the key comes out.

Whoever asks is authenticated as at every other door. A key that is not good for any reason is `{"active": false}` and
nothing more; when that cannot be told now, there is no answer but a problem, since a caller may remember this one.
"""

from typing import Any, Final
from urllib.parse import parse_qsl

from schemas.bearer import scope_text
from schemas.problems import MAX_BODY_BYTES, Problem, load, malformed
from schemas.times import to_ms
from schemas.validation import Code, IntrospectionRequest
from services.auth_checker.bodies import Answer, Asked

MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 20
_REQUEST: Final = IntrospectionRequest()


def question(raw: bytes, media_type: str) -> Asked:
    """The question in a form: `token`, and for keys that are bound to networks `ip`. Raises Problem 400, 413 or 415."""
    if len(raw) > MAX_BODY_BYTES:
        raise Problem(413, "too_large", f"the body has {len(raw)} bytes, at most {MAX_BODY_BYTES} are read")
    if raw and media_type != MEDIA_TYPE:
        raise Problem(415, "unsupported_media_type", f"send Content-Type: {MEDIA_TYPE}")
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise malformed(f"the body is not a form in UTF-8 with at most {_MOST_FIELDS} fields") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise malformed("the body has the same name twice")
    loaded = load(_REQUEST, form)
    return Asked(key=loaded["token"], ip=loaded.get("ip"))


def description(answer: Answer) -> dict[str, Any]:
    """The document about a key. Raises Problem 503."""
    if answer.code == Code.STALE:
        raise Problem(503, "stale", "the ledger cannot be reached, so no key is judged now", retry_after_s=1)
    if not answer.valid:
        return {"active": False}
    described = {
        "active": True,
        "token_type": "Bearer",
        "scope": scope_text(None if answer.scopes is None else answer.scopes or ()),
        "client_id": answer.key_id,
        "sub": answer.user_id,
        "key_id": answer.key_id,
        "org_id": answer.org_id,
        "revision": answer.revision,
        "as_of": answer.as_of,
        "max_staleness_ms": answer.max_staleness_ms,
    }
    # Whole seconds, rounded down: nobody may go on with a key because of the rest of a second.
    return described | ({"exp": to_ms(answer.expires_at) // 1000} if isinstance(answer.expires_at, str) else {})
