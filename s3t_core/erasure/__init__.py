"""Erasure: plan it, carry it out through ports, prove it. Imports no torch, prefect or mlflow."""
