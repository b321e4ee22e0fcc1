"""Envoy's configuration, made from an operator's file: its own filters, and a module of ours.

| module | holds |
| --- | --- |
| ``bootstrap`` | the whole: listeners, clusters, limits |
| ``overload`` | its bounds: memory, silent connections, slow readers |
| ``routes`` | what is let through, everything else is forbidden |
| ``filters`` | who asks, for which model, how often |
| ``counted`` | what a request costs, and whom |
| ``bounds`` | what one key, source, message may take, in our module (``module/*.c``) |
| ``replies`` | what the gateway says when it refuses |
| ``access_log`` | what is written down |
| ``scrub`` | what Triton says, without inner names and paths |
| ``typed`` | how Envoy writes down which kind of message follows |
"""
