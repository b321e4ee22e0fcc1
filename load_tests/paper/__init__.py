"""The paper's tables and figures, from independent runs that anyone can repeat.

| module | holds |
| --- | --- |
| ``run`` | what one run is: everything about it that decides its result |
| ``conditions`` | all else that does: threads, backend, versions, processor, data |
| ``victims`` | the networks that are stolen, trained once |
| ``execute`` | one run, from its victim to its measures |
| ``scales`` | how much of the paper's protocol is done: smoke, cpu, full |
| ``grids`` | the settings that each defence is tried with, and the paper's choice among them |
| ``thieves`` | who steals, beside the thief of the defence study |
| ``plan`` | the runs that each table and figure needs |
| ``runner`` | the runs that are missing, several at a time |
| ``again`` | a run's file made again under its own conditions |
| ``published`` | the paper's own numbers |
| ``tables``, ``figures``, ``facts`` | what the runs say |
| ``results`` | ``RESULTS.md`` of all that |
"""
