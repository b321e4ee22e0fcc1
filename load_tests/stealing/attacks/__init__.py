"""Stealing attacks: which queries to spend a budget on, and how to undo a defence.

``sample``, ``random_images``, ``jacobian``, ``knockoff`` and ``near_duplicates`` are plans, see
``load_tests.stealing.collect``: the same code attacks a live endpoint, a victim in this process,
and runs in Locust; ``plans`` finds them by name.
"""
