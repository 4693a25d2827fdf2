"""How annotations are checked under pytest."""

import beartype

# An int is welcome where a float is asked for, as everywhere in Python (PEP 484).
typechecker = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
