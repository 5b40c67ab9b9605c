"""Wiring: thin Prefect flows over the core; the only place that reads environment and command
line."""
