"""Proves: signs checkpoints of every ledger, and exports bundles that anyone can verify without us."""
