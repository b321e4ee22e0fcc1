"""What a hostile client does to a gateway, one function for each attack, all bounded.

``tests/live/test_hostile.py`` runs each of them, ``python -m deploy.hostile_benchmark`` all of
them for half an hour, ``reverse-sigmoid audit --dangerous`` against a server of the operator's.

| module | holds |
| --- | --- |
| ``door`` | where to knock, with which key, and questions that the model would answer |
| ``wire`` | HTTP/1.1 and HTTP/2 by hand, since no honest client sends what an attack sends |
| ``heard`` | what came back, looked through for raw scores and inner names |
| ``json_bodies``, ``long_fields``, ``cancelling``, ``filling``, ``holding``, ``lying``, ``odd`` |
  the attacks |
| ``attacks`` | all of them by name |
| ``attacker`` | a process that runs some of them |
| ``ways`` | what ``audit --dangerous`` makes of them |
"""
