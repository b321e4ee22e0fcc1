"""An audit from the outside: every way round the defence that we know, tried for real.

A ``way`` is one attempt at a ``target``; ``grpc_ways``, ``http_ways`` and ``port_ways`` list them.
Nothing is changed on the server: what would load, unload or register is asked with names and
files that do not exist, and judged by how it is refused. Ways to hurt a server rather than to get
round the defence are in ``deploy.hostile``, which stands on this package.
"""
