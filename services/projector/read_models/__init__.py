"""The read models: each module owns its tables of `tables.sql`, and is the only one that writes them."""
