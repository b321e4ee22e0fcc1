"""Everything that queries a live endpoint, or learns from its answers.

``endpoint`` asks a model over gRPC, and ``probabilities`` takes its scores for what they are. An
attack of ``attacks`` says what to ask, ``collect`` spends the query budget on it, and
``transfer_set_file`` keeps what was paid for. ``recover`` undoes the defence as far as it can,
``substitute`` learns from the answers by one of ``losses``, and ``measures`` compares victim,
protected model and substitute. ``thief`` names all ways to steal, ``campaign`` runs them against
one endpoint, ``red_team`` says what it comes to, and ``attack_report`` shows it to people.

``overhead`` measures what the defence costs under load: ``prepared`` makes the requests,
``closed_loop`` sends them, ``paired_rounds`` makes percentiles, throughput and ratios of the
answers' times, and ``flood`` is the thief who may query meanwhile. ``latency`` and ``report`` are
the demo's.

``locustfile`` is for Locust: ``triton_user`` speaks gRPC, ``thief_user`` runs the attacks, with
``plan_process`` around those that train and ``attack_record`` beside their transfer sets;
``load_shapes`` and ``locust_options`` are what can be chosen.

``paper`` runs the paper's tables and figures again, without a server.
"""
