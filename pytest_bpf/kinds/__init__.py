"""One row for each kind of program (`programs`) and each kind of map (`maps`).

Everything that depends on the kind of a program or map asks these tables.
"""
