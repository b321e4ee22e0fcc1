"""A setting of the defence for a classifier of yours, found offline, on its recorded scores.

    recorded -> candidates -> search -> recommend

The classifier is asked once. What a setting leaves of its answers is computed, and only what a
thief makes of them takes a training; those are the runs of ``load_tests.paper``.
"""
