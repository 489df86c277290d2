"""Kubernetes quantities as numbers."""

from __future__ import annotations

_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def number_of(quantity: str) -> float:
    """A Kubernetes quantity as a number: cores, or bytes. Raises ValueError."""
    number = quantity.rstrip("mkMGTi")
    return float(number) * _UNITS[quantity[len(number) :]]
