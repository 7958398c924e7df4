"""The console shows: people, their passwords and signed tokens, sessions and pages. Asks the others for the rest."""
