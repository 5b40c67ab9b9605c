"""Adapters: what the core's ports are filled with."""
