"""The check of a data set: what is wrong with its images, labels and splits."""
