"""What a hostile client does to a gateway, one function for each attack, all bounded.

``tests/live/test_hostile.py`` runs each of them, ``python -m deploy.benchmarks.hostile`` all of
them for half an hour, ``reverse-sigmoid audit --dangerous`` against an operator's own server.

| module | holds |
| --- | --- |
| ``wire`` | HTTP/2 by hand, since no honest client sends what an attack sends |
| ``crowd`` | many clients at once, for a time |
| ``heard`` | what came back, looked through for raw scores and inner names |
| ``json_bodies``, ``long_fields``, ``cancelling`` | attacks on what reads and works |
| ``filling``, ``holding``, ``lying``, ``odd`` | attacks on memory, connections, log, protocol |
| ``attacks`` | all of them by name: a new one is a function and a line here |
| ``attacker`` | a process that runs some of them |
| ``honest`` | clients who ask all the while and know the right answer |
| ``gentle_ways``, ``dangerous_ways`` | what ``audit`` makes of it all, without and with leave |
| ``mutated_messages``, ``mutated_requests`` | what ``python -m deploy.benchmarks.mutation`` sends |
"""
