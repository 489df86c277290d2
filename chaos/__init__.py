"""Faults made on purpose in the lab, and what clients of a cluster notice of each."""
