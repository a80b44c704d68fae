"""What has nothing to do with images or models: files, text, processes, messages."""
