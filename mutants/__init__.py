"""Changes the code on purpose, one line at a time, and says which test notices.

A test that passes whatever the code does proves nothing. So each promise is broken here on purpose, by a change with a
name (`named`), and the core by changes at random (`points`). Every change is made in a copy of the tree (`tree`), where
the tests that must notice it run (`trial`).
"""
