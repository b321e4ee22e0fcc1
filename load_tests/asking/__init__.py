"""Asking a model over gRPC, and what a call that fails says.

``endpoint`` asks, at what ``address`` reads of HOST:PORT. ``inputs`` are made up of what the model
says about itself, ``failures`` says in one line why a call failed, and ``spawned`` is a client in a
process of its own. ``deferred_signals`` lets what was paid for be written down before Ctrl-C ends
it.
"""
