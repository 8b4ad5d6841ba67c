"""The contenders, a file for each family: written as the library's own documentation would have it.

Each function has the number of items as its last argument and gives a result that all contenders of a case must agree
on. A benchmark names them (`benchmarks._harness.way`); nothing imports them before they run, for the library of one may
be missing, or be in an environment of its own.
"""
