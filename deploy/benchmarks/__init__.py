"""What serving costs, and what a gateway holds under attack: measured, on this machine.

| module | measures |
| --- | --- |
| ``serving`` | all ways to serve a classifier, ``rivals``: the command ``benchmark``; and by
|  | ``threads`` which of a classifier's threads and instances pay |
| ``servers`` | two Tritons with the same models, two builds for instance, by turns |
| ``gateway`` | a request: direct, through Envoy alone, through the gateway, with TLS |
| ``scrub`` | how long the gateway takes over an error that a client has made long |
| ``cost`` | how cost grows with classes, size and concurrency, and what a start takes,
|  | by ``start_cost``; ``cost_page`` shows it |
| ``frontier`` | what each kind of answers leaves to honest clients, and gives to thieves |
| ``soak`` | half an hour at half load: failures, memory |
| ``hostile`` | half an hour of every attack: whether honest clients notice |
| ``mutation`` | mutated messages and requests: what breaks, leaks or comes late |

All but ``serving`` run as ``python -m deploy.benchmarks.NAME``, with ``arguments`` in common; the
last three run the command ``serve --gateway`` itself, by ``gateway_run``. ``costs/`` holds what
was measured.
"""
