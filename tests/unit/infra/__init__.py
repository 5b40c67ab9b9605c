"""Containers, locks, the stack before it starts."""
