"""What a stage is made of: job, stages, feeds, events, stopping, faults, validation."""
