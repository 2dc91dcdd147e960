"""Is it smaller and faster, here? Launches in fresh processes, intervals over launches, and what to deploy."""
