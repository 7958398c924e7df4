"""All that the views use, JSON calls and pages alike."""

from dataclasses import dataclass

from services.console.api_clients import Checker, CommandApi, ReadApi
from services.console.bootstrap import Readiness
from services.console.members import Members
from services.console.metrics import Metrics
from services.console.oidc import Oidc
from services.console.passwords import Passwords
from services.console.people import People, Pool
from services.console.sessions import Sessions
from services.console.sign_in import SignIn
from services.console.signing_keys import SigningKeys
from services.console.sso import SingleSignOn


@dataclass(frozen=True, slots=True)
class Console:
    """Made in `worker`. `oidc` is None without single sign-on; `sso_name` is what its button says."""

    pool: Pool
    people: People
    passwords: Passwords
    members: Members
    sessions: Sessions
    sign_in: SignIn
    keys: SigningKeys
    command_api: CommandApi
    read_api: ReadApi
    checker: Checker
    readiness: Readiness
    metrics: Metrics
    sso: SingleSignOn
    oidc: Oidc | None
    sso_name: str
    is_https: bool
