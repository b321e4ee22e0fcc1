"""Everything that queries a live endpoint, or learns from its answers.

Three packages serve all others: ``data`` holds the rows that a model is asked about, ``asking``
asks it over gRPC, and ``reporting`` shows people what came of it.

``stealing`` is the attacks, from their questions to the report; ``timing`` measures what the
defence costs under load; ``users`` are the normal users and the thieves of Locust, whose door is
``locustfile``; ``runs`` makes trainings in this process, many at a time and each to be repeated.
``calibrate`` makes the table of calibrated answers. On them stand ``paper``, the paper's tables and
figures made again, ``tune``, which finds a setting for a classifier, and ``frontier``, which sets
what an answer leaves to honest clients against what it gives to thieves.
"""
