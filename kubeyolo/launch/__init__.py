"""How the worker processes of a step are started: on this machine, or in the pods of a job."""
