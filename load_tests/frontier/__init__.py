"""What honest clients lose by an answer, against what a thief gains by it over labels.

    study -> gains -> page

``study`` is which answers, thieves (of ``load_tests.stealing.thief``), budgets and seeds are tried,
as runs of ``load_tests.runs``, no thief chosen on a seed that it is told of; ``gains`` sets the
best thief of each answer against the best thief of labels; and ``page`` shows it to people.
"""
