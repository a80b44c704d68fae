"""Setup of training: the job, prepared stages, input to Keras, events, stop requests and validation."""
