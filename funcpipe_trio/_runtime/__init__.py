"""Where waiting happens.

Its folders, each of which imports only from those above it in this list:

    core          protocols between the parts; signals; failures; the ledger; how a task parks and waits
    reports       what a run says of itself, also between two snapshots, and what limited it
    links         what is between two stages: the plain one, one that drops, one that is fair by key, the sink
    fair_channel  the fair merge for any trio program
    hub           one stream to subscribers that come and go, likewise
    runners       where sync functions run: threads, worker processes, executors
    calls         one call and its policies
    operations    operations that run in the stage before them
    junctions     several streams as one (fan-ins), and one as several (fan-outs)
    stages        tasks that drive a chain: plain ones, those with a clock, sources
    pools         stages with places: calls, calls by key, streams in the stream, runs in the run
    run           how a run is built, opened, driven, changed, counted and ended

It decides nothing: fairness, batching, order, rate and retry are machines of `_sansio`.
"""
