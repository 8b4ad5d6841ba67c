"""The contenders, a file for each family: written as the library's own documentation recommends.

Each function has the number of items as its last argument and returns a result that all contenders of a case must agree
on. A benchmark names them (`benchmarks._model.way`); nothing imports them before they run, since the library of one may
be missing, or be in its own environment.
"""
