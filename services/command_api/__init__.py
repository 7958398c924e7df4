"""Decides: commands in, events out."""
