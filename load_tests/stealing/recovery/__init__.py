"""Undoing a defence: what the victim may have said, made of what the endpoint answered.

``recover`` finds each way by its name and says what an adversary must know for it: ``tail_ranking``
reads the order of the lesser classes, ``table`` looks answers up among a shadow model's, protected
by a copy of the defence, and ``bayes`` takes the mean of all that come near. ``analytic`` solves
the defence's equation for its surest solution, ``mixture`` for all of them. ``inverse`` learns the
way back, from a shadow's answers or from true ones, and ``d_dae`` for many settings at once.
"""
