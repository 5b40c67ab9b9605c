"""Measurements that documents quote. Not part of the package."""
