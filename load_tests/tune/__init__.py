"""A setting of the defence for a classifier of yours, found offline, on its recorded scores.

    recorded -> candidates -> search -> tuning -> report

The classifier is asked once: ``recorded``. What a setting leaves of its answers is computed, for
all ``candidates``, and only what a thief makes of them takes a training, a run of
``load_tests.runs``. ``search`` says which candidate is worth one next, ``tuning`` makes them and
recommends a setting, and ``report`` shows it as a table, a plot and JSON. ``answers_tried`` sets
it beside other kinds of answers, such as calibrated ones.
"""
