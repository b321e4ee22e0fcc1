"""The Reverse Sigmoid defence that runs as the last step of a Triton ensemble.

Read in the order of the pipeline:

1. ``parameters``       what config.pbtxt says, refused unless every word of it is understood
2. ``pseudo_logits``    softmax and its pseudo-logits, stable in float32
3. ``top1``             the accuracy constraint: the largest beta that keeps the top class
4. ``reverse_sigmoid``  equation 2: the perturbation itself
5. ``kernel``           2 to 4 once more, in C, for speed; where it was not compiled they run
6. ``postprocessor``    the above in order: scores in, protected probabilities out
7. ``triton_model``     Triton requests in, Triton responses out; no maths

NumPy is all it needs, and it imports nothing else of this project.
"""

__version__ = "0.1.0"
