"""Protections taken out, one at a time, each to be noticed by its test: `python -m tests.mutants`.

A mutant that survives (its test still passes) is an error: the test could not fail. They are listed
by what they are about, a module for each area.
"""

from pathlib import Path

from tests.mutants import (
    core,
    data,
    door,
    erasure,
    flows,
    learning,
    people,
    residue,
    servers,
    state,
)

ROOT = Path(__file__).parents[2]
MUTANTS = (
    *learning.MUTANTS,
    *core.MUTANTS,
    *erasure.MUTANTS,
    *residue.MUTANTS,
    *data.MUTANTS,
    *state.MUTANTS,
    *servers.MUTANTS,
    *door.MUTANTS,
    *people.MUTANTS,
    *flows.MUTANTS,
)
