"""The stand-alone verifier: honest bundles verify, and every way to touch one is found and named."""

import ast
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from services.auditor import verify_bundle
from services.auditor.export import audit_path
from services.auditor.verify_bundle import (
    Unverified,
    leaf_hash,
    main,
    read_keys,
    root_by_proof,
    tree_levels,
    tree_root,
    verify,
)
from tests.bundles import Forge, ledger, signing_key

# The test vectors of the Certificate Transparency project: inputs, the roots over the first 1 to 8, and audit paths.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
FLIPS, CLEAN = 1000, 100


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    made = Forge(tmp_path, random.Random(7))
    made.ledgers = {f"org-{number}": ledger(f"org-{number}", 12, made.dice) for number in range(5)}
    return made


def faults(forge: Forge, bundle: Path, *shipped: Path, want_all: bool = False) -> list[tuple[str, str]]:
    report = verify(bundle, read_keys(forge.public_keys().read_text()), list(shipped), want_all)
    return [(fault.code, fault.sentence) for fault in report.faults]


def test_the_tree_is_that_of_the_published_vectors() -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]
    assert [tree_root(leaves[:size]).hex() for size in range(1, 9)] == ROOTS
    assert tree_root([]) == sha256().digest()


@pytest.mark.parametrize(("index", "size"), PATHS)
def test_an_audit_path_is_that_of_the_published_vectors(index: int, size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]]
    assert [step.hex() for step in audit_path(tree_levels(leaves), index)] == PATHS[index, size]


def test_every_leaf_of_trees_of_all_sizes_is_proven_and_nothing_else_is() -> None:
    for size in range(1, 40):
        leaves = [leaf_hash(bytes([number])) for number in range(size)]
        root = tree_root(leaves)
        for index, leaf in enumerate(leaves):
            path = audit_path(tree_levels(leaves), index)
            assert root_by_proof(leaf, index, size, path) == root
            assert root_by_proof(leaf_hash(b"another"), index, size, path) != root
            with pytest.raises(ValueError, match="too long"):
                root_by_proof(leaf, index, size, [*path, root])


def test_clean_bundles_raise_no_false_alarm(tmp_path: Path) -> None:
    for seed in range(CLEAN):
        forge = Forge(tmp_path / str(seed), random.Random(seed))
        forge.folder.mkdir()
        forge.grow(orgs=1 + seed % 9, most_records=30)
        assert faults(forge, forge.honest()) == []


def test_every_single_byte_flip_is_found(forge: Forge) -> None:
    bundle, seed = forge.honest(), random.randrange(2**32)
    print(f"seed {seed}")
    dice, keys = random.Random(seed), read_keys(forge.public_keys().read_text())
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    unseen = []
    for _ in range(FLIPS):
        [path] = dice.choices(files, sizes)
        whole = path.read_bytes()
        at, mask = dice.randrange(len(whole)), dice.randint(1, 255)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
        if not verify(bundle, keys, []).faults:
            unseen.append((path.name, at, mask))
        path.write_bytes(whole)
    assert unseen == []
    assert faults(forge, bundle) == []


def test_a_flip_in_a_record_names_that_record(forge: Forge) -> None:
    for revision in range(1, 12):
        values = list(forge.ledgers["org-2"])
        values[revision - 1] = values[revision - 1].replace(b"0.", b"1.")
        bundle = forge.write(f"bundle {revision}", forge.sign(), {**forge.ledgers, "org-2": values})
        assert faults(forge, bundle) == [
            ("changed", f"org-2: record {revision} was changed: it is not the one its neighbours name")
        ]


def forged(values: list[bytes], revision: int) -> bytes:
    """An event that looks as right as the one of that revision, parent included."""
    return values[revision - 1].replace(b'"name":"', b'"name":"planted ')


def one_more(values: list[bytes]) -> bytes:
    """An event that extends the last one."""
    event = {"org": "org-2", "parent": sha256(values[-1]).hexdigest(), "revision": len(values) + 1}
    return json.dumps(event, separators=(",", ":")).encode()


CASES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str, str]] = {
    "a dropped record": (lambda v: v[:4] + v[5:], "missing", "records 5 to 5 are missing"),
    "a dropped range": (lambda v: v[:4] + v[9:], "missing", "records 5 to 9 are missing"),
    "two swapped": (lambda v: [*v[:4], v[5], v[4], *v[6:]], "reordered", "record 5 is not in its place"),
    "the last two swapped": (lambda v: [*v[:10], v[11], v[10]], "reordered", "record 11 is not in its place"),
    "one inserted before": (lambda v: [*v[:4], forged(v, 5), *v[4:]], "inserted", "5; the first one was inserted"),
    "one inserted after": (lambda v: [*v[:5], forged(v, 5), *v[5:]], "inserted", "5; the second one was inserted"),
    "a copy inserted": (lambda v: [*v[:7], v[2], *v[7:]], "inserted", "one that says 3 was inserted"),
    "a truncated tail": (lambda v: v[:-3], "truncated", "records 10 to 12 are missing at the end"),
    "a forged tail": (lambda v: [*v, *ledger("org-2", 13, random.Random(1))[12:]], "changed", "record 13 was changed"),
    "a tail that nobody signed": (
        lambda v: [*v, one_more(v)],
        "inserted",
        "records after 12 are not in the checkpoint",
    ),
    "the last changed": (lambda v: [*v[:-1], forged(v, 12)], "other_history", "record 12 is not the one"),
    "all written anew": (lambda v: ledger("org-2", 12, random.Random(1)), "other_history", "record 12 is not the one"),
    "no text": (lambda v: [*v[:4], b"\xff", *v[5:]], "changed", "record 5 was changed"),
    "another organisation's": (lambda v: ledger("org-3", 12, random.Random(1)), "changed", "record 1 was changed"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_done_to_a_ledger_is_named(forge: Forge, case: str) -> None:
    change, code, words = CASES[case]
    bundle = forge.write("bundle", forge.sign(), {**forge.ledgers, "org-2": change(forge.ledgers["org-2"])})
    [(found, sentence)] = faults(forge, bundle)
    assert (found, sentence.startswith("org-2: ")) == (code, True)
    assert words in sentence


def test_an_organisation_left_out_is_named_by_its_neighbours(forge: Forge) -> None:
    some = {org: values for org, values in forge.ledgers.items() if org != "org-2"}
    bundle = forge.write("bundle", forge.sign(), some)
    assert faults(forge, bundle) == [
        ("left_out", "1 of 5 organisations are left out, the first between org-1 and org-3")
    ]


def test_a_bundle_of_one_organisation_is_whole_unless_all_are_asked_for(forge: Forge) -> None:
    bundle = forge.write("bundle", forge.sign(), {"org-2": forge.ledgers["org-2"]}, is_all=False)
    assert faults(forge, bundle) == []
    assert [code for code, _ in faults(forge, bundle, want_all=True)] == ["left_out"]


def test_records_that_are_listed_but_gone_are_left_out(forge: Forge) -> None:
    bundle = forge.honest()
    (bundle / "records/org-2.jsonl").unlink()
    assert [code for code, _ in faults(forge, bundle)] == ["left_out", "manifest"]


def test_a_checkpoint_of_another_history_proves_nothing(forge: Forge) -> None:
    other = forge.sign(org_2=ledger("org-2", 12, random.Random(1)))
    bundle = forge.write("bundle", other, forge.ledgers)
    assert [code for code, _ in faults(forge, bundle)] == ["other_history"]


def test_a_bundle_signed_with_another_key_is_refused(forge: Forge) -> None:
    bundle = forge.honest()
    mine, forge.key = forge.key, signing_key()
    resigned = forge.honest("again")
    forge.key = mine
    assert faults(forge, bundle) == []
    [(code, sentence)] = faults(forge, resigned)
    assert (code, "none of your public keys" in sentence) == ("signature", True)


def test_notes_of_a_key_that_was_rotated_out_verify_on(forge: Forge) -> None:
    before = forge.honest("before")
    old, new = forge.key, signing_key()
    forge.key = type(old)(old.origin, [*old._keys, *new._keys])
    after = forge.honest("after")
    assert (faults(forge, before), faults(forge, after)) == ([], [])
    assert (before / "checkpoint").read_bytes() != (after / "checkpoint").read_bytes()


def test_two_checkpoints_that_contradict_each_other_are_named(forge: Forge) -> None:
    bundle, shipped = forge.honest(), forge.folder / "shipped.checkpoint"
    shipped.write_bytes(forge.sign("2026-11-23T10:00:00.000Z", org_2=forge.ledgers["org-2"][:7]).whole)
    assert faults(forge, bundle, shipped) == []
    shipped.write_bytes(forge.sign("2026-11-23T10:00:00.000Z", org_2=ledger("org-2", 7, random.Random(1))).whole)
    [(code, sentence)] = faults(forge, bundle, shipped)
    assert (code, "2026-11-23T10:00:00.000Z (shipped.checkpoint) says revision 7 is" in sentence) == (
        "contradiction",
        True,
    )


def test_a_tail_that_was_signed_before_and_is_gone_is_a_contradiction(forge: Forge) -> None:
    shipped = forge.folder / "shipped.checkpoint"
    shipped.write_bytes(forge.sign("2026-11-23T10:00:00.000Z").whole)
    cut = {**forge.ledgers, "org-2": forge.ledgers["org-2"][:7]}
    bundle = forge.write("bundle", forge.sign(org_2=cut["org-2"]), cut)
    [(code, sentence)] = faults(forge, bundle, shipped)
    assert (code, "says revision 12 existed" in sentence) == ("contradiction", True)


def test_a_newer_checkpoint_may_know_more(forge: Forge) -> None:
    longer, shipped = ledger("org-2", 20, random.Random(3)), forge.folder / "shipped.checkpoint"
    forge.ledgers["org-2"] = longer[:12]
    shipped.write_bytes(forge.sign("2026-11-25T10:00:00.000Z", org_2=longer).whole)
    assert faults(forge, forge.honest(), shipped) == []


def test_a_shipped_checkpoint_must_be_what_was_signed(forge: Forge) -> None:
    bundle, shipped = forge.honest(), forge.folder / "shipped.checkpoint"
    shipped.write_bytes(forge.sign().whole.replace(b"org-2 12", b"org-2 11"))
    [(code, _)] = faults(forge, bundle, shipped)
    assert code == "proof"


def test_a_file_more_or_less_is_found(forge: Forge) -> None:
    bundle = forge.honest()
    (bundle / "more").write_text("")
    assert faults(forge, bundle) == [("manifest", "more is not the file that the manifest lists")]
    (bundle / "more").unlink()
    (bundle / "headers/org-2.jsonl").unlink()
    assert faults(forge, bundle) == [("manifest", "headers/org-2.jsonl is not the file that the manifest lists")]


def test_it_stands_alone(forge: Forge) -> None:
    tree = ast.parse(Path(verify_bundle.__file__).read_text())
    imports = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imports |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imports} <= {*sys.stdlib_module_names, "cryptography"}
    alone = forge.folder / "verify_bundle.py"
    shutil.copy(verify_bundle.__file__, alone)
    command = [sys.executable, "-I", str(alone), str(forge.honest()), "--key", str(forge.public_keys()), "--all"]
    answer = subprocess.run(command, cwd=forge.folder, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(
        "VERIFIED: 5 of 5 organisations, 60 records; checkpoint of 2026-11-24T10:00:00.000Z"
    )


def test_the_exit_code_tells_verified_from_not_and_from_misuse(
    forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, keys = forge.honest(), forge.public_keys()
    assert main([str(bundle), "--key", str(keys)]) == 0
    (bundle / "proofs.json").write_text("{}")
    assert main([str(bundle), "--key", str(keys)]) == 1
    assert main([str(bundle), "--key", str(bundle / "none")]) == 2
    keys.write_text("keyledger/test+00000000+AQ==\n")
    assert main([str(bundle), "--key", str(keys)]) == 2
    assert "cannot verify: keyledger/test: not an Ed25519 public key" in capsys.readouterr().err


def test_a_bundle_of_nothing_is_not_verified(forge: Forge) -> None:
    bundle = forge.write("bundle", forge.sign(), {}, is_all=False)
    assert [code for code, _ in faults(forge, bundle)] == ["left_out"]


def test_a_fault_has_a_code_and_a_sentence() -> None:
    fault = Unverified("missing", "records 5 to 5 are missing")
    assert (fault.code, str(fault)) == ("missing", "records 5 to 5 are missing")
