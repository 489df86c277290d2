"""Checks from outside: does the platform that stands there keep what its plan promises?

It knows only what a stack tells (its outputs and settings) and what the machines answer.
"""
