"""Plants bugs by the hundred and counts those that the tests notice.

    python -m tests.mutate app --most 100        a hundred mutants of the explorer, by the seed
    python -m tests.mutate stage3/metrics        those of one package
    python -m tests.mutate --report OUT.md       what is known so far, per package

A mutant is one small change of the source (`operators`). The tests beside the file run on it, those first that reach
the changed line, in a child forked from an interpreter that has torch and all else loaded (`forks`). Results are lines
of JSON in `.stage3/mutate`, so that a run that was stopped goes on. Changes that no test can notice stand in
`equivalent.toml`, with a reason.
"""
