"""Small random programs with exact answers: every pair of features that can be combined occurs in one.

It shares no code with the library: a program is a set of rows (`rows`), each with its part of the model, the guide
and ln p(x) in closed form; `reference` loops over data and draws. `python -m tests.generated` prints what is covered.
"""
