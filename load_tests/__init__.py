"""Everything that queries a live endpoint, or learns from its answers.

``endpoint`` asks a model over gRPC, at what ``address`` reads of HOST:PORT. What it is asked about
is ``rows``, ``drawn`` from a data set or from a file of ``query_sets``, which ``tensors`` makes
the model's own inputs of; ``inputs`` are made up of what the model says about itself, and
``failures`` says why a call failed. ``measures``
compares the answers of two models, ``plots`` and ``page`` show it to people. ``deferred_signals``
lets what was paid for be written down before Ctrl-C ends it.

The rooms: ``stealing`` is the attacks, from their questions to the report; ``timing`` measures what
the defence costs under load; ``users`` are the normal users and the thieves of Locust, whose door
is ``locustfile``; ``runs`` makes trainings in this process, many at a time and each to be repeated.
``calibrate`` makes the table of calibrated answers. On them stand ``paper``, the paper's tables and
figures made again, ``tune``, which finds a setting for a classifier, and ``frontier``, which sets
what an answer leaves to honest clients against what it gives to thieves.
"""
