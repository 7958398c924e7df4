"""Kafka and PostgreSQL on this machine, and the process list of `make run`."""
