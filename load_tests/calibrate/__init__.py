"""The table of calibrated answers, and what honest clients get from it.

``fit`` makes the table from what a classifier said about rows whose labels are known, and
``honest`` compares what clients can do with raw, deceptive and calibrated answers.
"""
