"""What classifier an ONNX file holds.

``classifier`` finds it out, with ``batch`` (how many rows it takes), ``score_output`` (which output
holds the scores), ``graph_ending`` (what they come from, and the cut to the logits;
``written_softmax`` reads one that is written out), ``class_axis`` (where the classes lie),
``evidence`` (what it gives on much input) and ``score_kind`` (what that is).
"""
