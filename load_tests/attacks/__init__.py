"""Stealing attacks: each spends a query budget and returns a transfer set.

An attack asks any ``images -> scores`` callable, so the same code attacks a live endpoint
and a victim in this process.
"""
