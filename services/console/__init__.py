"""The console shows: people, their passwords and signed tokens, and (later) the pages. Asks the others for the rest."""
