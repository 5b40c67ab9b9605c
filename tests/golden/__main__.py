"""Writes all golden files anew: on purpose, with the reason in the commit."""

from tests.golden import GOLDEN, path_of

for name, make in GOLDEN.items():
    path_of(name).write_bytes(b"".join(line + b"\n" for line in make()))
