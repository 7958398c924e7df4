"""The log all services share: the chain rule, append, follow. Knows no business rule, no SQL and no web framework."""
