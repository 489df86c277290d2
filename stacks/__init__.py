"""Composition: a plan becomes components, and components become outputs."""
