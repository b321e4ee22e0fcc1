"""The defence as operators of the model's own graph.

``fused`` appends it: ``score_nodes`` reads the scores, and ``defence_nodes``, ``calibrated_nodes``
or ``decoy_nodes`` say which operators.
"""
