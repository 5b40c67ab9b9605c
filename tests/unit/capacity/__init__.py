"""Placement, sequences, the deletion-rate budget."""
