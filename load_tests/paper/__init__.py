"""The paper's tables and figures, from independent runs that anyone can repeat.

What one run is, and how it is made, is in ``load_tests.runs``.

| module | holds |
| --- | --- |
| ``scales`` | how much of the paper's protocol is done: smoke, cpu, text, full |
| ``grids`` | the settings that each defence is tried with, and the paper's choice among them |
| ``thieves`` | who steals, beside the thief of the defence study |
| ``plan`` | the runs that each table and figure needs |
| ``again`` | a run's file made again under its own conditions |
| ``published`` | the paper's own numbers |
| ``measured`` | what the runs say, as cells of tables |
| ``tables``, ``beyond`` | the paper's tables, and those that it does not have |
| ``figures`` | the paper's figures, with bands over seeds |
| ``facts`` | the paper's statements: which hold here, and why others do not |
| ``findings`` | the numbers of thieves that the next two tell |
| ``learnt``, ``statements`` | what was learnt, and what the READMEs say of thieves |
| ``headings`` | of RESULTS.md, and links to them |
| ``results`` | ``RESULTS.md`` of all that |
"""
