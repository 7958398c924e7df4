"""Which organisations sign in with single sign-on only. Their API keys go on working; their passwords do not."""

from schemas.problems import Problem
from schemas.validation import PLATFORM
from services.console.people import Pool


class SingleSignOn:
    """The table `console.org_sign_in`. `configured`: whether this console knows a provider of single sign-on."""

    def __init__(self, pool: Pool, configured: bool) -> None:
        self._pool, self.configured = pool, configured

    def is_required(self, org_id: str) -> bool:
        """Whether passwords of this organisation are refused; stays so when the provider is no longer configured."""
        with self._pool.connection() as connection:
            row = connection.execute("SELECT sso_only FROM console.org_sign_in WHERE org_id = %s", [org_id]).fetchone()
        return row is not None and bool(row[0])

    def require(self, org_id: str, required: bool) -> None:
        """Turn it on or off. Raises Problem 409 `sso_platform` or `sso_not_configured`; turning it off always works."""
        if required and org_id == PLATFORM:
            # When the provider is away for good, somebody must still be able to sign in and turn this off.
            raise Problem(409, "sso_platform", "operators can always sign in with a password")
        if required and not self.configured:
            raise Problem(409, "sso_not_configured", "this console has no single sign-on configured")
        with self._pool.connection() as connection:
            connection.execute(
                "INSERT INTO console.org_sign_in VALUES (%s, %s)"
                " ON CONFLICT (org_id) DO UPDATE SET sso_only = excluded.sso_only",
                [org_id, required],
            )

    def refuse_password(self, org_id: str) -> None:
        """Raises Problem 403 `sso_required` where passwords are of no use."""
        if self.is_required(org_id):
            raise Problem(403, "sso_required", "your organisation signs in with single sign-on")
