"""The data, and what everything stands on."""
