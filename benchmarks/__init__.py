"""What apigate costs, against the least Python can do and against peers: `python -m benchmarks`.

Rule: a budget is a ratio within one run. A case is timed in turn with its floor, round by round,
and the median of the rounds' ratios is judged; a time in microseconds is for orientation only, for
it says as much about the machine.

    measure   rounds and ratios               budgets   what must hold, as data
    floors    hand-written references         report    Markdown
    peers     other limiters in memory        web       frameworks, and the limiters made for them
    drive     requests without a server       throttling memory gate methods imports    the sections

A peer that is not installed is skipped, and the report says so. `--quick` only shows that all of it
runs; its figures mean nothing. `--profile CASE` shows where a case's time goes.
"""
