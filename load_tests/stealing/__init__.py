"""Stealing a model through its endpoint, and what the theft comes to.

From a question to a substitute: ``attacks`` say what to ask, ``collect`` spends the query budget on
it, and ``probabilities`` takes the scores for what they are. ``transfer_set`` is what an adversary
then has, ``transfer_set_file`` keeps it on disk with an ``attack_record`` beside it, and ``claim``
lets no other attack into the folder. ``recovery`` undoes the defence as far as it can, and
``substitute`` learns from the rest by one of ``losses``, one of them behind a ``defence_layer``.
``learning`` makes more of it, with rows never asked about.

``thief`` names all ways to steal, ``steal`` goes one of them, a ``theft`` is of several who begin
alike, and a ``crew`` does thefts side by side. ``campaign`` goes all ways on one endpoint,
``verdict`` says what it comes to and ``report`` shows it to people. ``same_answers`` lets no folder
mix answers from before and after a retune, ``known_table`` no thief take another table for that of
calibrated answers. ``attack`` is all of that for the command line.
"""
