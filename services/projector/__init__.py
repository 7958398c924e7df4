"""The projector remembers: it folds the log into PostgreSQL, and the read API answers from there."""
