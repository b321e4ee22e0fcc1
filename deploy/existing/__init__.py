"""A model that already stands in a Triton repository, protected where it stands, and back again.

``listing`` says which models of a repository are public. ``reading`` says what a model is by its
config.pbtxt, and refuses what cannot be protected; ``completing`` asks Triton for what that leaves
out, and ``config_text`` makes small edits of it. ``asking`` finds out from the model itself what
its scores are; ``served`` is the model behind a Triton, the embedded one or a named one.
``staging`` writes the protected models beside the repository, ``placing_in`` moves them in under a
server, and ``undoing`` takes that back. ``protecting`` is the whole way. ``second`` sets another
public model over the same classifier.

Weights are linked, never copied: the model keeps its files and becomes ``NAME_classifier``.
"""
