"""What Triton reads: the models' files and texts.

``model_repository`` writes the three models, in the words of ``config_pbtxt`` and
``defence_parameters``. ``versions`` says which of a model's are served. ``record`` keeps what a
model was that is protected in place.
"""
