"""The repository itself: its shape, documents, mutants."""
