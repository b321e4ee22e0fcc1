"""What came of it, for people.

``measures`` compares the answers of two models, ``plots`` draws and ``page`` writes.
"""
