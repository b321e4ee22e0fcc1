"""Model repositories on disk: read, looked at, changed.

``model_config`` reads a config.pbtxt as Triton does, and ``protected`` finds the models that end
in our defence.

``check`` looks at a whole repository: ``ensemble_check`` follows the tensors of its ensembles,
``fused_check`` the defences inside graphs, ``version_check`` every version that feeds a defence;
a ``finding`` is what they say.

``retuning`` writes other parameters, in a config.pbtxt by ``config_edit``, and ``answers`` another
kind of answers; ``question_refresh`` then brings the kept questions up to date. ``victim_graph`` is
the classifier behind a protected model, to be run by itself.
"""
