"""Envoy's configuration, made from an operator's file: core filters only.

| module | holds |
| --- | --- |
| ``bootstrap`` | the whole: listeners, clusters, limits |
| ``routes`` | what is let through, everything else is forbidden |
| ``filters`` | who asks, for which model, how often |
| ``replies`` | what the gateway says when it refuses |
| ``scrub`` | what Triton says, without inner names and paths |
"""
