"""The ledger, erasures and evidence."""
