"""What a caller asks the auth checker, what it answers, and the closed list of codes.

A code is decided in the order of this list, first match wins (DESIGN section 6).
"""

from enum import StrEnum

from marshmallow import INCLUDE, Schema
from marshmallow.fields import Nested

from schemas import fields


class Code(StrEnum):
    """The outcome of a validation."""

    MALFORMED = "MALFORMED"
    STALE = "STALE"
    NOT_FOUND = "NOT_FOUND"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    ORG_KEYS_DISABLED = "ORG_KEYS_DISABLED"
    OWNER_DISABLED = "OWNER_DISABLED"
    IP_NOT_ALLOWED = "IP_NOT_ALLOWED"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    VALID = "VALID"

    # A code is a text, and hashed as one: an enum's own way is slow, and every answer is counted by its code.
    __hash__ = str.__hash__


KEYS_READ = "keys:read"
KEYS_WRITE = "keys:write"
USAGE_WRITE = "usage:write"
KEYS_VALIDATE = "keys:validate"
PLATFORM = "platform"
"""The organisation whose admins are the operators."""
BOOTSTRAP = "bootstrap"
"""The `sub` of the console's token that may register `platform` and add its first admin, nothing else."""


MIN_REVISION = fields.ID + ":(0|[1-9][0-9]{0,15})"
"""`<org>:<revision>`: answer from this revision of that organisation's ledger on."""


class ValidationRequest(Schema):
    """Is this key good? Any text is a key here; `scopes` are those the caller needs, `min_revision` is `<org>:<revision>`."""

    key = fields.Text(required=True)
    scopes = fields.Items(fields.Text(), allow_none=True)
    ip = fields.Text(allow_none=True)
    user_agent = fields.Text(allow_none=True)
    min_revision = fields.text(MIN_REVISION, 80, allow_none=True)


class ValidationAnswer(Schema):
    """`valid` and one `code`; the rest only for a key that is known and whose whole text matched."""

    valid = fields.Flag(required=True)
    code = fields.one_of([code.value for code in Code], required=True)
    key_id = fields.Text()
    org_id = fields.Text()
    user_id = fields.Text()
    role = fields.Text()
    kind = fields.Text()
    name = fields.Text()
    scopes = fields.Items(fields.Text(), allow_none=True)
    expires_at = fields.Text(allow_none=True)
    revision = fields.Whole()
    as_of = fields.Text()
    max_staleness_ms = fields.Whole()


class BatchRequest(Schema):
    """At most 100 validations."""

    items = fields.items(Nested(ValidationRequest), 100, required=True)


class BatchAnswer(Schema):
    """The answers, in the order of the requests."""

    items = fields.Items(Nested(ValidationAnswer), required=True)


class CallerRequest(Schema):
    """Who is behind this bearer token, a signed token of a person or an API key?"""

    token = fields.Text(required=True)
    ip = fields.Text(allow_none=True)
    user_agent = fields.Text(allow_none=True)
    min_revision = fields.text(MIN_REVISION, 80, allow_none=True)


class CallerAnswer(Schema):
    """`revision` is that of the caller's own organisation at which role and status were read."""

    valid = fields.Flag(required=True)
    code = fields.one_of([code.value for code in Code], required=True)
    key_id = fields.Text()
    org_id = fields.Text()
    user_id = fields.Text()
    role = fields.Text()
    kind = fields.Text()
    scopes = fields.Items(fields.Text(), allow_none=True)
    revision = fields.Whole()


class IntrospectionRequest(Schema):
    """A form, RFC 7662. `ip` is ours: where the key is used from, without which a key bound to networks is not good.

    What else a client sends, `token_type_hint` for one, is ignored, as is the custom in OAuth.
    """

    class Meta:
        """Unknown fields do no harm."""

        unknown = INCLUDE

    token = fields.Text(required=True)
    ip = fields.Text()


class IntrospectionAnswer(Schema):
    """RFC 7662; only `active` for a key that is not good. `client_id` is the key, `sub` its owner, `exp` in seconds.

    `scope` is `*` for a key that is not restricted.
    """

    active = fields.Flag(required=True)
    token_type = fields.Text()
    scope = fields.Text()
    client_id = fields.Text()
    sub = fields.Text()
    exp = fields.Whole()
    key_id = fields.Text()
    org_id = fields.Text()
    revision = fields.Whole()
    as_of = fields.Text()
    max_staleness_ms = fields.Whole()
