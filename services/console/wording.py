"""What pages say: codes, times and numbers in plain words. Pure, but for the time of day."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from markupsafe import Markup

from schemas import times
from schemas.problems import Problem

_PROBLEMS: Final = {
    "bad_credentials": "The e-mail address or the password is wrong.",
    "owner_disabled": "This account is disabled. An admin of the organisation can enable it again.",
    "sso_required": "Your organisation signs in with single sign-on, not with a password.",
    "wrong_password": "The old password is wrong.",
    "too_many_attempts": "There were too many failed tries. Please wait a moment, then try again.",
    "name_taken": "There is an active key with this name already. Please choose another name.",
    "key_inactive": "This key is revoked already.",
    "person_erased": "This account was erased.",
    "caller_disabled": "Your account is disabled.",
    "key_limit": "There are as many active keys as one user may have. Revoke one that is no longer needed.",
    "org_keys_disabled": "API keys are turned off for this organisation.",
    "email_taken": "This e-mail address is in use already.",
    "last_admin": "This is the last active admin. Make somebody else an admin first.",
    "org_exists": "There is an organisation with this id already.",
    "malformed": "Something in the form has to be changed; see below.",
    "forbidden": "Your role does not allow this.",
    "method_not_allowed": "There is nothing to see at this address: it only takes a form. Go back to the page with the form.",
    "too_large": "That is more than a form here can hold.",
    "not_found": "There is nothing here, or nothing that you may see.",
    "outcome_unknown": "It is not known whether that was done. Press the button again: it is done once at most.",
    "busy": "Others are changing the same things right now. Please press the button again.",
    "org_halted": "This organisation is halted because a piece of its history is missing or not understood. "
    "Nothing can be changed, and no key is accepted, until an operator has repaired it.",
    "database_away": "The console cannot reach its database right now. Keys go on working. It will try again.",
    "dependency_away": "A service behind this page does not answer right now. Please try again in a moment.",
    "stale": "It cannot be told right now who may do what. Please try again in a moment.",
    "internal_error": "This should not have happened. It has been logged.",
    "idempotency_key_reused": "This form was sent before with other values. Please open the page anew.",
    "password_change_required": "Please change the temporary password first.",
    "sso_not_configured": "This console has no single sign-on to ask for.",
    "not_signed": "Nothing was signed for this organisation yet, so there is nothing that could prove itself. "
    "An operator signs it with `keyledger audit checkpoint`.",
    "archive_broken": "The archive contradicts the signed checkpoint: somebody changed what it holds. Do not rely on it, "
    "and tell an operator.",
    "sso_platform": "Operators can always sign in with a password.",
}
_TITLES: Final = {
    401: "Please sign in",
    403: "Not allowed",
    404: "Not found",
    405: "Nothing to see here",
    409: "That is not possible",
    429: "Please wait",
    500: "Something went wrong",
    503: "Not available right now",
}
_FIELDS: Final = {
    "name": "Name",
    "email": "E-mail",
    "expires_at": "Expires on",
    "scopes": "Scopes",
    "cidrs": "Networks",
    "reason": "Reason",
    "comment": "Comment",
    "role": "Role",
    "kind": "Kind",
    "org_id": "Id",
    "search": "Search",
}
ROLES: Final = {"member": "a member", "admin": "an admin", "auditor": "an auditor"}
"""What to call a user with a role."""
ERASED: Final = "Erased user"
_CHECKER: Final = "keyledger/auth-checker/"
_HTTP: Final = "keyledger/usage/"
_STEPS: Final = (
    (365 * 86_400, "year"),
    (30 * 86_400, "month"),
    (86_400, "day"),
    (3600, "hour"),
    (60, "minute"),
)


def problem(problem: Problem) -> str:
    """A refusal as a sentence for the person whose form it was."""
    return _PROBLEMS.get(problem.code) or _sentence(problem.detail)


def title(status: int) -> str:
    """The heading of an error's page."""
    return _TITLES.get(status, "That did not work")


def field(name: str) -> str:
    """The label of a form's field; empty for one that people do not see."""
    return _FIELDS.get(name, "")


def count(number: int, what: str) -> str:
    """`1 key`, `17 keys`, `no keys`."""
    return f"{number or 'no':{',' if number else ''}} {what}{'' if number == 1 else 's'}"


def exact(time: str) -> str:
    """`23 Nov 2026, 18:00:00 UTC`."""
    moment = times.to_datetime(times.to_ms(time))
    return f"{moment.day} {moment:%b %Y, %H:%M:%S} UTC"


def distance(time_ms: int, now_ms: int) -> str:
    """`5 minutes ago`, `in 3 days`, `just now`; rounded down."""
    seconds = abs(now_ms - time_ms) // 1000
    for length, unit in _STEPS:
        if seconds >= length:
            words = count(seconds // length, unit)
            return f"in {words}" if time_ms > now_ms else f"{words} ago"
    if time_ms > now_ms + 1000:
        return "in less than a minute"
    return "just now" if seconds < 10 else f"{seconds} seconds ago"


def effect(answer: Mapping[str, Any], done: str) -> str:
    """What a command that takes rights away did: `done`, and whether it is so everywhere (DESIGN, section 7)."""
    if answer.get("effective") is True:
        took = answer.get("effective_ms")
        return f"{done} Refused everywhere" + (f" after {took:,} ms." if isinstance(took, int) else ".")
    if answer.get("effective") is False:
        return f"{done} Not every auth checker has confirmed it yet; those that do not will stop accepting anything."
    return done


def user_name(user: Mapping[str, Any]) -> str:
    """What to call a user of the read API; one that was erased has no name any more."""
    return ERASED if user["status"] == "erased" else str(user["name"] or user["user_id"])


def owner_name(key: Mapping[str, Any]) -> str:
    """What to call the owner of a key of the read API."""
    return str(key["owner_name"] or key["user_id"])


def place(ip: str | None) -> str:
    """Where a use came from: an address, a network, or that it was one of many or is not known."""
    return {None: "an unknown address", "other": "other addresses"}.get(ip, str(ip))


def service(source: str) -> str:
    """Who told of a use, by the source of its event."""
    if source.startswith(_CHECKER):
        return "an auth checker"
    if source.startswith(_HTTP):
        return f"a service of {source.removeprefix(_HTTP)}"
    return source


def _ago(time: str | None) -> str:
    if not time:
        return "never"
    words = distance(times.to_ms(time), times.wall_clock_ms())
    return Markup('<time datetime="{}" title="{}" data-ago>{}</time>').format(time, exact(time), words)


def _day(time: str | None) -> str:
    if not time:
        return "never"
    words = exact(time).split(",")[0]
    return Markup('<time datetime="{}" title="{}">{}</time>').format(time, exact(time), words)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!")) else text + "."


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "ago": _ago,
    "day": _day,
    "count": count,
    "exact": exact,
    "user_name": user_name,
    "owner_name": owner_name,
    "place": place,
    "service": service,
}
"""What templates know by name."""
