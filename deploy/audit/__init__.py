"""An audit from the outside: every way round the defence that we know, tried for real.

A ``way`` is one attempt; ``grpc_ways``, ``http_ways`` and ``port_ways`` list them,
and ``matrix`` those of every client to every model. What is tried is
a ``target``, as its server tells of it, and its ``door``: where a client with some key knocks, and
the question that it asks; over HTTP/1.1 by hand, ``http1``.
Nothing is changed on the server: what would load, unload or register is asked with names and
files that do not exist, and judged by how it is refused. Ways to hurt a server rather than to get
round the defence are in ``deploy.hostile``, which stands on this package.
"""
