"""The processes that make up Keyledger; each is started as `python -m services.<name>`."""
