"""Ports for a stack of a test's own."""

import random

from infra.stack import listens, taken


def free_ports() -> dict[str, int]:
    """[ports] of a stack whose every port is free."""
    while True:
        base = random.randrange(20000, 30000)
        found = {"s3": base, "mlflow": base + 4, "prefect": base + 5}
        if not any(taken(p) for ports in listens(found).values() for p in ports):
            return found
