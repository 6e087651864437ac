"""What was observed of a task, what a run costs, and which to make next."""
