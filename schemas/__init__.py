"""The contract: everything that crosses a process boundary, and what other teams import to publish key use."""
