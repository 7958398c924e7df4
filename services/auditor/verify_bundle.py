"""Verify a bundle of Keyledger, offline, with nothing of Keyledger installed.

    python verify_bundle.py BUNDLE --key PUBLIC_KEYS [--all] [--checkpoint FILE ...]

It needs Python 3.11 and the package `cryptography`. BUNDLE is a folder; PUBLIC_KEYS a file with one public key a line, as
`keyledger audit public-key` prints them and as they should have reached you by another way than the bundle. FILE is a
checkpoint that was shipped to you earlier: the bundle must not contradict it. With --all no organisation of the
checkpoint may be left out. Exit code: 0 verified, 1 not, 2 misuse.

Every byte is hashed again. Formats: C2SP signed-note and tlog-checkpoint, RFC 6962 section 2.1 for the tree,
docs/audit.md for the rest.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT: Final = "keyledger-bundle-1"
ROOT: Final = "0" * 64
MANIFEST, CHECKPOINT, PROOFS = "manifest.json", "checkpoint", "proofs.json"
ED25519: Final = b"\x01"
_KEY_HASH_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_LINE: Final = re.compile(r"([A-Za-z0-9_-]{1,64}) ([1-9][0-9]{0,15}) ([0-9a-f]{64})")


class Unverified(Exception):
    """Something is not what was signed. `code` is a stable word, `sentence` names the place."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


class Link(NamedTuple):
    """What the chain needs to know of a record; `hash` is that of its exact bytes."""

    revision: int
    parent: str
    hash: str


class Head(NamedTuple):
    """What a checkpoint says about an organisation: its last revision and the hash of that record."""

    revision: int
    hash: str


@dataclass(frozen=True)
class Checkpoint:
    """A signed note that was found good: `size` organisations, the root of their lines, when, and by which key."""

    origin: str
    size: int
    root: bytes
    time: str
    fingerprint: str


@dataclass
class Report:
    """What was found. Nothing in `faults` means verified."""

    faults: list[Unverified] = field(default_factory=list)
    records: dict[str, int] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


def leaf_hash(line: bytes) -> bytes:
    """RFC 6962: the hash of a leaf."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962: the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_levels(leaves: list[bytes]) -> list[list[bytes]]:
    """RFC 6962: the hashes of a tree, level by level, from those of its leaves up to the root."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        odd = level[-1:] if len(level) % 2 else []  # It has no neighbour and goes up as it is.
        pairs = zip(level[::2], level[1::2], strict=False)
        levels.append([node_hash(left, right) for left, right in pairs] + odd)
    return levels


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962: the root over the hashes of leaves."""
    return tree_levels(leaves)[-1][0] if leaves else hashlib.sha256().digest()


def root_by_proof(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162, 2.1.3.2 (the same tree as RFC 6962): the root that an inclusion proof leads to. Raises ValueError."""
    if not 0 <= index < size:
        raise ValueError("the index is outside the tree")
    at, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            raise ValueError("the path is too long")
        if at % 2 or at == last:
            found = node_hash(step, found)
            while at % 2 == 0 and at:
                at, last = at // 2, last // 2
        else:
            found = node_hash(found, step)
        at, last = at // 2, last // 2
    if last:
        raise ValueError("the path is too short")
    return found


def read_keys(text: str) -> dict[tuple[str, bytes], bytes]:
    """{(name, key hash): Ed25519 public key} of the lines `name+hash+base64`. Raises ValueError."""
    keys = {}
    for line in text.split():
        name, hash_, encoded = line.split("+", 2)
        public = base64.b64decode(encoded, validate=True)
        if public[:1] != ED25519 or key_hash(name, public[1:]).hex() != hash_:
            raise ValueError(f"{name}: not an Ed25519 public key of a signed note")
        keys[name, bytes.fromhex(hash_)] = public[1:]
    return keys


def key_hash(name: str, public: bytes) -> bytes:
    """C2SP signed-note: the bytes by which a signature names its key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:_KEY_HASH_BYTES]


def read_checkpoint(note: bytes, keys: dict[tuple[str, bytes], bytes]) -> Checkpoint:
    """Check the signature and read what was signed. Raises Unverified."""
    try:
        text, _, signatures = note.decode().rpartition("\n\n")
        origin, size, root, time = text.split("\n")
        signer = _signer(f"{text}\n".encode(), signatures, keys)
        return Checkpoint(origin, int(size), base64.b64decode(root, validate=True), time, signer)
    except ValueError as error:
        raise Unverified("signature", f"the checkpoint is no signed note: {error}") from error


def _signer(text: bytes, signatures: str, keys: dict[tuple[str, bytes], bytes]) -> str:
    """The fingerprint of the known key that signed the text. Raises Unverified and ValueError."""
    names = []
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        signature = base64.b64decode(encoded, validate=True)
        if dash != "—" or len(signature) != _KEY_HASH_BYTES + _SIGNATURE_BYTES:
            raise ValueError("a signature line is malformed")
        names.append(name)
        public = keys.get((name, signature[:_KEY_HASH_BYTES]))
        if public is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature[_KEY_HASH_BYTES:], text)
        except InvalidSignature as error:
            raise Unverified("signature", "the checkpoint was changed: its signature is not of this text") from error
        return hashlib.sha256(public).hexdigest()
    raise Unverified("signature", f"the checkpoint is signed by none of your public keys, but by {names}")


def verify(bundle: Path, keys: dict[tuple[str, bytes], bytes], shipped: list[Path], want_all: bool = False) -> Report:
    """Verify a bundle against public keys, and against checkpoints shipped earlier. Raises OSError."""
    report, digests, chains = Report(), dict[str, tuple[str, int]](), dict[str, list[Link]]()
    manifest = _guarded(report, _json, bundle / MANIFEST) or {}
    proofs = _guarded(report, _json, bundle / PROOFS) or {}
    note = (bundle / CHECKPOINT).read_bytes() if (bundle / CHECKPOINT).is_file() else b""
    report.checkpoint = _guarded(report, read_checkpoint, note, keys)
    for org, proof in sorted(proofs.items()):
        head = _guarded(report, _head, org, proof, report.checkpoint)
        links = _guarded(report, _links, bundle, org, digests) if head is not None else None
        if links is not None:
            _guarded(report, check_chain, org, links, head)
            chains[org] = links
        report.records[org] = len(links or ())
    if report.checkpoint is not None:
        if want_all or manifest.get("all") or not proofs:
            _guarded(report, _check_complete, proofs, report.checkpoint)
        for path in shipped:
            _guarded(report, _check_shipped, path, keys, chains, report.checkpoint)
    _guarded(report, _check_manifest, bundle, manifest, digests, report)
    return report


def _guarded(report: Report, check: Any, *arguments: Any) -> Any:
    """What a check gives; None when it found a fault, which is then in the report."""
    try:
        return check(*arguments)
    except Unverified as fault:
        report.faults.append(fault)
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
        raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise Unverified("unreadable", f"{path.name} cannot be read: {error}") from error


def _head(org: str, proof: Any, checkpoint: Checkpoint | None) -> Head | None:
    """What the checkpoint says about an organisation, proven to be in it. Raises Unverified."""
    try:
        line = f"{org} {proof['revision']} {proof['head']}"
        if not _LINE.fullmatch(line) or type(proof["revision"]) is not int:
            raise ValueError("it is no line of a checkpoint")
        path = [bytes.fromhex(step) for step in proof["path"]]
        if checkpoint is not None:
            root = root_by_proof(leaf_hash(line.encode()), proof["index"], checkpoint.size, path)
            if root != checkpoint.root:
                raise ValueError("it leads to another root: it was changed, or is of another checkpoint")
        return Head(proof["revision"], proof["head"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unverified("proof", f"{org}: the proof of inclusion does not hold: {error}") from error


def _links(bundle: Path, org: str, digests: dict[str, tuple[str, int]]) -> list[Link]:
    """Hash every record of an organisation. Raises Unverified."""
    name = f"records/{org}.jsonl"
    if not (bundle / name).is_file():
        raise Unverified("left_out", f"{org}: its records are not in the bundle")
    whole, size, links = hashlib.sha256(), 0, []
    with (bundle / name).open("rb") as file:
        for number, line in enumerate(file, 1):
            whole.update(line)
            size += len(line)
            links.append(_link(org, number, line.removesuffix(b"\n")))
    digests[name] = (whole.hexdigest(), size)
    return links


def _link(org: str, number: int, value: bytes) -> Link:
    try:
        document = json.loads(value.decode())
        revision, parent = document["revision"], document["parent"]
        if document["org"] != org or type(revision) is not int or type(parent) is not str:
            raise ValueError("it is no event of this organisation")
        return Link(revision, parent, hashlib.sha256(value).hexdigest())
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Unverified("changed", f"{org}: record {number} was changed: {error}") from error


def check_chain(org: str, links: list[Link], head: Head) -> None:
    """Walk a ledger from its first record to the signed head. Raises Unverified that names the first fault."""
    parent = ROOT
    for place, link in enumerate(links, 1):
        after = links[place] if place < len(links) else None
        if link.revision != place:
            raise _misplaced(org, place, links, head)
        if link.parent != parent:
            named = head.hash if after is None else after.parent
            guilty = place - 1 if named == link.hash and place > 1 else place
            raise Unverified("changed", f"{org}: record {guilty} was changed: it is not the one its neighbours name")
        if after is not None and after.revision == place:
            raise _inserted(org, place, links, head)
        parent = link.hash
    if len(links) < head.revision:
        raise Unverified("truncated", f"{org}: records {len(links) + 1} to {head.revision} are missing at the end")
    if len(links) > head.revision:
        raise Unverified("inserted", f"{org}: the records after {head.revision} are not in the checkpoint")
    if parent != head.hash:
        raise Unverified(
            "other_history",
            f"{org}: record {head.revision} is not the one that was signed: it was changed, or the checkpoint is of another"
            " history",
        )


def _misplaced(org: str, place: int, links: list[Link], head: Head) -> Unverified:
    """Where revision `place` should stand is another one."""
    found = links[place - 1].revision
    after = links[place].revision if place < len(links) else head.revision + 1
    if after == place + 1:
        return Unverified("changed", f"{org}: record {place} was changed: it says it is revision {found}")
    if found < place:
        return Unverified("inserted", f"{org}: where record {place} should stand, one that says {found} was inserted")
    if any(link.revision == place for link in links[place:]):
        return Unverified("reordered", f"{org}: record {place} is not in its place: revision {found} stands there")
    return Unverified("missing", f"{org}: records {place} to {found - 1} are missing")


def _inserted(org: str, place: int, links: list[Link], head: Head) -> Unverified:
    """Two records follow each other that say the same revision: the next one, or the head, names the right one."""
    named = links[place + 1].parent if place + 1 < len(links) else head.hash
    wrong = "second" if links[place - 1].hash == named else "first"
    return Unverified("inserted", f"{org}: two records say they are revision {place}; the {wrong} one was inserted")


def _check_complete(proofs: dict[str, Any], checkpoint: Checkpoint) -> None:
    """No organisation of the checkpoint may be left out. Raises Unverified."""
    held = {proof["index"]: org for org, proof in proofs.items() if isinstance(proof, dict) and "index" in proof}
    absent = [index for index in range(checkpoint.size) if index not in held]
    if absent:
        before, after = held.get(absent[0] - 1, "the beginning"), held.get(absent[0] + 1, "the end")
        where = f"the first between {before} and {after}"
        raise Unverified("left_out", f"{len(absent)} of {checkpoint.size} organisations are left out, {where}")


def read_shipped(content: bytes, keys: dict[tuple[str, bytes], bytes]) -> tuple[Checkpoint, dict[str, Head]]:
    """A checkpoint with its lines, as the notary keeps it: the note, an empty line, the lines. Raises Unverified."""
    text, signatures, lines = [*content.split(b"\n\n", 2), b"", b""][:3]
    checkpoint = read_checkpoint(text + b"\n\n" + signatures + b"\n", keys)
    rows = lines.splitlines()
    if tree_root([leaf_hash(row) for row in rows]) != checkpoint.root or len(rows) != checkpoint.size:
        raise Unverified("proof", f"the lines of the checkpoint of {checkpoint.time} are not those that were signed")
    return checkpoint, read_lines(lines)


def read_lines(lines: bytes) -> dict[str, Head]:
    """What the lines of a checkpoint say about each organisation, in the order of the leaves."""
    rows = (row.decode().split(" ") for row in lines.splitlines())
    return {org: Head(int(revision), hash_) for org, revision, hash_ in rows}


def _check_shipped(
    path: Path, keys: dict[tuple[str, bytes], bytes], chains: dict[str, list[Link]], checkpoint: Checkpoint
) -> None:
    """The bundle must hold what another checkpoint says, unless that is newer. Raises Unverified."""
    other, heads = read_shipped(path.read_bytes(), keys)
    if other.origin != checkpoint.origin:
        raise Unverified("other_history", f"{path.name} is of another installation: {other.origin}")
    for org, links in chains.items():
        revision, hash_ = heads.get(org, Head(0, ROOT))
        where = (
            f"{org}: two checkpoints contradict each other: that of {other.time} ({path.name}) says revision {revision}"
        )
        if revision > len(links):
            if other.time <= checkpoint.time:
                raise Unverified("contradiction", f"{where} existed; that of {checkpoint.time} ends at {len(links)}")
        elif revision and links[revision - 1].hash != hash_:
            raise Unverified("contradiction", f"{where} is {hash_}, in this bundle it is {links[revision - 1].hash}")


def manifest_of(files: dict[str, tuple[str, int]], is_all: bool, fingerprint: str) -> bytes:
    """The manifest of a bundle; it says nothing that cannot be worked out from the rest again."""
    entries = {name: {"bytes": size, "sha256": digest} for name, (digest, size) in files.items()}
    document = {"all": is_all, "files": entries, "format": FORMAT, "key": fingerprint}
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def digest_of(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _check_manifest(
    bundle: Path, manifest: dict[str, Any], digests: dict[str, tuple[str, int]], report: Report
) -> None:
    """Every byte of every file, the manifest's own included, must be as the manifest says. Raises Unverified."""
    files = sorted(path for path in bundle.rglob("*") if not path.is_dir() and path != bundle / MANIFEST)
    found = {
        name: digests.get(name) or digest_of(path) for path in files for name in [path.relative_to(bundle).as_posix()]
    }
    listed = manifest.get("files")
    for name in sorted({*found, *(listed if isinstance(listed, dict) else {})}):
        entry = listed.get(name) if isinstance(listed, dict) else None
        digest, size = found.get(name, ("", -1))
        if entry != {"bytes": size, "sha256": digest}:
            raise Unverified("manifest", f"{name} is not the file that the manifest lists")
    fingerprint = report.checkpoint.fingerprint if report.checkpoint else str(manifest.get("key"))
    if (bundle / MANIFEST).read_bytes() != manifest_of(found, manifest.get("all") is True, fingerprint):
        raise Unverified("manifest", f"{MANIFEST} was changed, or names another key than the one that signed")


def lines_of(report: Report) -> list[str]:
    """What a person is told."""
    checkpoint, count = report.checkpoint, sum(report.records.values())
    signed = f"of {checkpoint.time}, signed by {checkpoint.origin} ({checkpoint.fingerprint})" if checkpoint else "none"
    of = f" of {checkpoint.size}" if checkpoint else ""
    verdict = "NOT VERIFIED" if report.faults else "VERIFIED"
    return [
        *(f"{fault.code}: {fault.sentence}" for fault in report.faults),
        f"{verdict}: {len(report.records)}{of} organisations, {count} records; checkpoint {signed}",
    ]


def main(argv: list[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Verify a bundle of Keyledger, offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", type=Path, required=True, help="a file of public keys, one a line")
    parser.add_argument("--all", action="store_true", help="no organisation of the checkpoint may be left out")
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[], help="those that were shipped earlier")
    arguments = parser.parse_args(argv)
    try:
        keys = read_keys(arguments.key.read_text())
        report = verify(arguments.bundle, keys, arguments.checkpoint, arguments.all)
    except (OSError, ValueError) as error:
        print(f"cannot verify: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines_of(report)))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
