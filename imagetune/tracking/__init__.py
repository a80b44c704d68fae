"""Experiment tracking: a run's copy in MLflow. The only package that imports mlflow, and only inside functions.

Everything is written to the run folder first. Tracking copies the folder to MLflow, remembers what it has sent in
``RUN/tracking.json``, and can be repeated at any time: a second copy changes nothing.
"""
