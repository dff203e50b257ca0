"""The training loop and what it stands on: schedules, optimisers, checkpoints, baselines."""
