"""Everything that queries a live endpoint, or learns from its answers.

``endpoint`` asks a model over gRPC, ``attacks`` turn a query budget into a transfer set,
``substitute`` learns from it, ``measures`` compares victim, protected model and substitute,
``latency`` times two models in one interleaved run, and ``report`` shows it all to people.

``overhead`` measures what the defence costs under load: ``prepared`` makes the requests,
``closed_loop`` sends them, ``paired_rounds`` makes percentiles, throughput and ratios of the
answers' times, and ``flood`` is the thief who may query meanwhile.
"""
