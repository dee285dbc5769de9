"""The Journal: tasks, commands and actuations, so that nothing is done twice."""
