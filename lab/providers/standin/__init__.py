"""Stand-in providers: Pulumi plugins that keep the contract of the official ones.

The packages ``command``, ``random`` and ``tls`` have official plugins that an
air-gapped machine cannot download.  The classes here answer the engine with the
same tokens, inputs, outputs, secrets, diffs and replacements for the resources
that the product uses; ``../README.md`` lists what they do not cover.
"""
