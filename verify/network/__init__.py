"""The proof of the network contract: real packets between a stack's hosts, compared with its plan.

questions.py says what is asked, asker.py sends it, recorder.py sees what arrives and what the filter lets in, proof.py
compares, table.py prints.
"""
