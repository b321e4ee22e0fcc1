"""What the defence costs: latency and throughput, of models that take turns.

``prepared`` makes requests before the clock starts. ``closed_loop`` sends them, each client the
next once the last is answered; ``paced`` sends at given times, whatever the last answer took.
``interleaved`` gives everything that is compared its turns, and ``paired_rounds`` makes
percentiles, throughput and their ratios of what came of them; ``machine`` says on what.

``overhead`` is the command's measurement of a protected and an unprotected model, ``flood`` the
thief who may query meanwhile. ``step_benchmark`` times the defence alone, without a server:
``python -m load_tests.timing.step_benchmark``.
"""
