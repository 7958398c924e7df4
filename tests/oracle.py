"""What the read models must hold, worked out from the log alone, in plain dicts. Imports nothing of ours, on purpose."""

import hmac
import json
import re
from collections import defaultdict
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise

from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

ID, TIME, WHOLE = "[A-Za-z0-9_-]{1,64}", r"[2-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", range(1 - 2**53, 2**53)
USED = {"key_id": "[0-9A-Za-z]{22}", "org_id": ID, "user_id": ID, "outcome": "[A-Z_]{5,20}", "count": "[1-9][0-9]*"}
USED |= {"first_at": TIME, "last_at": TIME, "ip": "|other|[0-9a-f.:]+", "user_agent": ".{0,200}"}
STATUS = {"UserDisabled": "disabled", "UserEnabled": "active", "PersonErased": "erased"}
ROOT = {"revision": 0, "hash": "0" * 64, "time": ""}
TOLERANCE_S = 300
STRICT = json.JSONDecoder(parse_float=int, parse_constant=int, parse_int=lambda text: WHOLE[WHOLE.index(int(text))])


def expected(bootstrap, keys_file):
    """{table: set of rows} of the log as it is now; `keys_file` is the path of the ledger-keys file."""
    keys = {kid: bytes.fromhex(key) for kid, key in json.loads(keys_file.read_text())["keys"].items()}
    wanted = [TopicPartition(t, n) for t in ("key-lifecycle", "key-usage", "key-usage-external") for n in range(12)]
    reader = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    reader.assign(wanted)
    first, ends, records = reader.beginning_offsets(wanted), reader.end_offsets(wanted), []
    while any(reader.position(at) < ends[at] for at in wanted):
        records += [record for polled in reader.poll(timeout_ms=200).values() for record in polled]
    reader.close()
    return fold(records, keys, {(at.topic, at.partition) for at in wanted if first[at] > 0})


def fold(records, keys, cut=frozenset()):
    """As `expected`, from records in the order of each partition; `cut` are the partitions that lost their beginning."""
    tables, ledgers, seen = defaultdict(dict), {}, {}  # type: ignore[var-annotated]  # Plain dicts, as they come.
    for record in records:
        if record.topic == "key-lifecycle" and (link := sealed(record, keys)):
            ledger = ledgers.setdefault(link["org"], {"chain": [ROOT], "folded": 1, "waiting": []})
            take(record, link, ledger, tables)
    for record in records:
        if record.topic != "key-lifecycle":
            use(record, tables, seen, (record.topic, record.partition) in cut)
    for org, ledger in ledgers.items():
        head, halted = ledger["chain"][-1], ledger["folded"] < len(ledger["chain"]) or ledger["waiting"] != []
        tables["heads"][org] = [org, head["revision"], head["hash"], head["time"], halted]
    for (topic, source, partition), marks in seen.items():
        if partition is None:
            tables["external_usage_ids"].update({(source, mark): [source, mark] for mark in marks})
            continue
        tables["usage_sources"][topic, source, partition] = [source, partition, max(marks), topic]
        gaps = [(below + 1, above - 1) for below, above in pairwise(sorted(marks)) if above > below + 1]
        tables["usage_gaps"].update({(topic, source, partition, gap): [source, partition, *gap, topic] for gap in gaps})
    return {table: {tuple(row) for row in rows.values()} for table, rows in tables.items() if rows}


def parsed(value):
    """The JSON object of these bytes and its canonical form; ({}, None) when it is none of ours."""
    try:
        document = dict(STRICT.decode(value.decode()))
        return document, json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (AttributeError, RecursionError, TypeError, ValueError):
        return {}, None


def sealed(record, keys):
    """The link of a record that is sealed, canonical and in its own place; None for a foreign one."""
    value, headers, (document, again) = record.value or b"", dict(record.headers), parsed(record.value)
    link = {name: document.get(name) for name in ("org", "revision", "parent", "time", "dataschema", "data")}
    org, revision, parent, *_ = link.values()
    key = keys.get((headers.get("kid") or b"").decode("ascii", "replace"))
    ours = key is not None and headers.get("mac") == hmac.new(key, value, sha256).hexdigest().encode()
    ours = ours and again == value and len(value) <= 32768 and type(org) is type(parent) is str
    ours = ours and re.fullmatch(ID, org) and re.fullmatch("[0-9a-f]{64}", parent) and record.key == org.encode()
    ours = ours and type(revision) is int and revision > 0
    if not ours or record.partition != (murmur2(record.key) & 0x7FFFFFFF) % 12:
        return None
    link["data"] = link["data"] if isinstance(link["data"], dict) else {}
    link["time"] = link["time"] if re.fullmatch(TIME, str(link["time"])) else ""
    return link | {"hash": sha256(value).hexdigest(), "offset": record.offset}


def judge(link, chain, forgotten="halting"):
    """What the chain rule says; `forgotten` where the parent is older than the thousand that are remembered."""
    before, head = link["revision"] - 1, len(chain) - 1
    if before > head or 0 < before <= head - 1000:
        return "halting" if before > head else forgotten
    return "halting" if chain[before]["hash"] != link["parent"] else "applied" if before == head else "void"


def take(record, link, ledger, tables):
    """Sort a record; when it extends the head, sort again what waited for that, and fold what no halt holds back."""
    chain, rows, outcome = ledger["chain"], tables["ledger_records"], judge(link, ledger["chain"], "void")
    about = re.fullmatch(USED["key_id"], str(link["data"].get("key_id")))
    row = [record.partition, outcome, *(link[name] for name in ("offset", "org", "revision", "hash", "parent", "time"))]
    rows[record.offset, record.partition] = [*row, about and about[0], tuple(map(tuple, record.headers))]
    ledger["waiting"] += [link] if outcome != "void" else []
    while outcome == "applied" and (fits := [one for one in ledger["waiting"] if judge(one, chain) != "halting"]):
        rows[fits[0]["offset"], record.partition][1] = settled = judge(fits[0], chain)
        chain += [fits[0]] if settled == "applied" else []
        aside = [fits[0]["offset"], *(fits[0]["data"].get("offsets", []) if settled == "applied" else [])]
        ledger["waiting"] = [one for one in ledger["waiting"] if one["offset"] not in aside]
    while not ledger["waiting"] and ledger["folded"] < len(chain) and evolve(chain[ledger["folded"]], tables):
        ledger["folded"] += 1


def evolve(link, tables):
    """False, and nothing done, when the type is unknown or the organisation's state forbids the event."""
    orgs, users, keys = tables["orgs"], tables["users"], tables["keys"]
    org, time, revision, data = link["org"], link["time"], link["revision"], link["data"]
    name = str(link["dataschema"]).removeprefix("keyledger:").removesuffix(":1")
    about, user, key = data.get("user_id"), users.get((org, data.get("user_id"))), keys.get((org, data.get("key_id")))
    match name if (name == "OrgRegistered") == (org not in orgs) else None:
        case "OrgRegistered":
            orgs[org] = [org, data.get("name"), False, time]
        case "OrgKeysEnabled" | "OrgKeysDisabled":
            orgs[org][2] = name == "OrgKeysEnabled"
        case "UserAdded" if user is None:
            users[org, about] = [org, about, data["kind"], data["role"], "active", time, revision]
        case "UserRoleChanged" | "UserDisabled" | "UserEnabled" | "PersonErased" if user and user[4] != "erased":
            user[3], user[4], user[6] = data.get("role", user[3]), STATUS.get(name, user[4]), revision
        case "KeyCreated" if key is None and user and user[4] != "erased":
            lists = map(json.dumps, (data.get("scopes"), data.get("cidrs")))
            row = [org, data["key_id"], about, data["name"], data["last4"], *lists]
            keys[org, data["key_id"]] = [*row, time, data.get("expires_at"), None, revision]
        case "KeyRenamed" | "KeyRevoked" if key and key[9] is None:
            key[3], key[9], key[10] = data.get("name", key[3]), time if name == "KeyRevoked" else None, revision
        case _:
            return name == "LedgerResumed" and org in orgs
    return True


def use(record, tables, seen, cut):
    """Count a KeyUsed once, by its number or else by its id, if it can have been; else it is held."""
    document, own = parsed(record.value)[0], record.topic == "key-usage"
    data, number = document.get("data"), document.get("sequence", None if own else "1".zfill(20))
    known = document.get("dataschema") == "keyledger:KeyUsed:1" and isinstance(data, dict) and not set(data) - set(USED)
    known = known and all(re.fullmatch(shape, str(data.get(name, ""))) for name, shape in USED.items())
    if not known or not re.fullmatch(r"\d{20}", str(number)) or not 0 < int(number) < 2**53:
        return
    by_number, source = "sequence" in document, document["source"]
    mark = int(number) if by_number else document["id"]
    sender = (record.topic, source, record.partition if by_number else None)
    marks = seen.setdefault(sender, {int(number) - 1 if cut else 0} if by_number else set())
    if mark in marks or (by_number and mark < min(marks)):
        return
    marks.add(mark)
    key = (data["org_id"], data["key_id"])
    reason = held(record, data, tables["keys"].get(key))
    if reason:
        tables["usage_quarantine"][record.offset, record.partition, own] = [
            *(record.topic, record.partition, record.offset, reason)
        ]
        return
    owner = data["user_id"] if own else tables["keys"][key][2]
    count, ip, valid = data["count"], data.get("ip", ""), data["outcome"] == "VALID"
    row = tables["key_usage"].setdefault(key, [*key, 0, 0, "", "", "", ""])
    last = [data["last_at"], ip, data.get("user_agent", ""), source] if valid else [""] * 4
    row[2:] = [row[2] + count, row[3] + count * valid, *max(row[4:], last)]
    place = (*key, owner, data["first_at"][:13] + ":00:00.000Z", data["outcome"], ip)
    row = tables["key_usage_hours"].setdefault(place, [*place, 0, data["first_at"], ""])
    row[6:] = [row[6] + count, min(row[7], data["first_at"]), max(row[8], data["last_at"])]


def held(record, data, key):
    """Why a use is not counted; None when it is. `key` is the row of its key, if there is one."""
    sent_ms = record.timestamp if hasattr(record, "timestamp") else record.time_ms
    if data["last_at"] > stamp(sent_ms / 1000 + TOLERANCE_S):
        return "future"
    if key is None:
        return None if record.topic == "key-usage" else "keyless"
    created = datetime.fromisoformat(key[7]).timestamp()
    return "before_creation" if data["first_at"] < stamp(created - TOLERANCE_S) else None


def stamp(seconds):
    """The text of a moment."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
