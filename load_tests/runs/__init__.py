"""Trainings in this process, without a server, each decided by what its file says.

``run`` is everything about one that decides its result, ``conditions`` all else that does, such as
threads, versions and the processor. ``answers`` are what may be answered besides a defence's.
``victims`` are trained once, ``execute`` makes a run of one, ``worker`` is a process that does so,
``processes`` are several of them, and ``cluster`` those of other machines, where ``remote`` keeps
one at each of Dask's workers; ``runner`` keeps them busy with the runs that are missing. ``made``
is what a run's file holds. ``criterion`` chooses among settings by what their runs say.
``load_tests.paper`` and ``load_tests.tune`` stand on them.
"""
