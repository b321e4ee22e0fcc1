"""An audit from the outside: every way round the defence that we know, tried for real.

Nothing is changed on the server: what would load, unload or register is asked with names and
files that do not exist, and judged by how it is refused. Ways to hurt a server rather than to get
round the defence are in ``deploy.hostile``, which stands on this package.
"""
