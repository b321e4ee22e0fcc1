"""An audit from the outside: every way round the defence that we know, tried for real.

Nothing is changed on the server: what would load, unload or register is asked with names and
files that do not exist, and judged by how it is refused.
"""
