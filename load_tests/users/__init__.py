"""The users of a load test, for Locust.

``triton_user`` speaks gRPC, ``thief_user`` runs the attacks of ``load_tests.stealing``, those that
train in a process of their own, ``plan_process``. ``options`` are what can be set, and
``load_shapes`` how the number of users changes.
"""
