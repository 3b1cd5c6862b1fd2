"""The model-based test: random tables, transactions, DDL, crashes and syncs; in the end both sides are compared.

A seed gives a plan (`plan.py`), a plan is carried out (`run.py`), and `oracle.py` is the judge.
"""
