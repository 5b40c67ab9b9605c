"""Capacity: where a subject is placed, which sequences are trained, how much of the budget is
left."""
