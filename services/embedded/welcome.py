"""What a person reads when everything is up: the addresses, and three lines that work."""

import json
import shlex
from pathlib import Path
from typing import Any

_JSON = "-H 'Content-Type: application/json'"


def welcome(urls: dict[str, list[str]], first_start: Path) -> str:
    """The addresses, who can sign in, and the curl lines; only the addresses when the people were made elsewhere."""
    lines = [f"  {name:<9} {', '.join(_without_password(url) for url in each)}" for name, each in urls.items()]
    if not first_start.exists():
        lines.append(f"There is no {first_start}: the first people were made by an earlier start with other state.")
        return "\n".join(lines)
    facts = json.loads(first_start.read_text())
    for role, person in (("operator", facts["operator"]), ("admin", facts["demo"]["admin"])):
        lines.append(f"  {role:<9} {person['email']}  password {person['password']}")
    lines.append(f"  member    {facts['demo']['member']['email']}  password {facts['demo']['member']['password']}")
    return "\n".join([*lines, "", "Sign in, create a key, have it validated:", "", *quickstart(urls, facts)])


def quickstart(urls: dict[str, list[str]], facts: dict[str, Any]) -> list[str]:
    """Three shell lines: they need curl and python3, and each uses what the one before it answered."""
    member = facts["demo"]["member"]
    sign_in = shlex.quote(json.dumps({"email": member["email"], "password": member["password"]}))
    keys = f"{urls['command'][0]}/v1/orgs/{facts['demo']['org_id']}/keys"
    create = f"""{keys} {_JSON} -H "Authorization: Bearer $TOKEN" -d '{{"name": "my first key"}}'"""
    return [
        f"TOKEN=$(curl -s {urls['console'][0]}/v1/sessions {_JSON} -d {sign_in} | {_pick('token')})",
        f"KEY=$(curl -s {create} | {_pick('key')})",
        f"""curl -s {urls["checker"][0]}/v1/validations {_JSON} -d "{{\\"key\\": \\"$KEY\\"}}" """.rstrip(),
    ]


def _pick(name: str) -> str:
    return f"""python3 -c 'import json, sys; print(json.load(sys.stdin)["{name}"])'"""


def _without_password(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else url
