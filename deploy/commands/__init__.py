"""The command line ``reverse-sigmoid``: a module for each command, thin calls into other packages.

``app`` has the registry and says how a command ends. Each command is a dataclass ``<Name>Command``
in the module of its name: its docstring is the help, its fields are the options, in the order of
the help, and ``run`` does the work. To add one, add its module and its line in
``app.COMMANDS``. A module is imported when its command is called, and imports what is heavy in
``run``, so that no help waits for TensorFlow.

| module | command that |
| --- | --- |
| ``demo``, ``demo_report`` | goes the whole way of the data once, with a page of what came of it |
| ``export`` | trains a classifier and writes it, protected |
| ``protect``, ``protect_told`` | protects a classifier that exists, and says what it found |
| ``protect_existing`` | protects a model of a repository where it stands |
| ``protect_answers`` | sets what clients of a protected model get, and a second model beside it |
| ``check`` | looks for mistakes in a model repository |
| ``retune``, ``tune`` | changes the defence of a model, or finds a setting for it |
| ``calibrate`` | answers with the label and a calibrated level of confidence |
| ``serve`` | runs Triton, supervised, with or without the gateway |
| ``gateway`` | writes what Envoy needs where it runs by itself |
| ``audit`` | tries every way round the defence |
| ``attack`` | steals from an endpoint |
| ``overhead``, ``benchmark`` | measures what the defence costs, here or beside other ways |
| ``paper`` | makes the paper's tables and figures again |

They share ``options`` and, where a model is asked, those of ``asking``; ``many``, which tries each
of several models; ``console``, to talk to people; ``progress``, what these see meanwhile;
``needs``, which packages have to be there; ``scheduler``, by which runs are made on other machines;
and ``signals``, by which a command ends.
"""
