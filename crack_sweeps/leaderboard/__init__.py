"""Who wins, and is it real: statistics, ranking, the report."""
