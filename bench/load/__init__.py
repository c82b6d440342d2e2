"""The load generator: a schedule that is fixed before the start, clients that keep it, and what they saw."""
