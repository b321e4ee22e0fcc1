"""What ``serve`` does while Triton runs: it asks, notices, brings back and reports.

``supervisor`` goes round. ``watched`` keeps the state of one protected model, ``probe`` its
question and known answer: the question that stands beside the model, or one of ``questions`` made
up. ``traffic`` tells which models nobody else asks. ``stubs`` are the processes behind the models,
``recovery`` brings back what fails, and ``gateway_probe`` asks through the gateway too. ``edits``
follows changes of config.pbtxt, ``versions`` new versions of models. ``status_file`` is what a
machine may read of it all.
"""
