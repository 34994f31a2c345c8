"""What is observed of models: speed, outputs, accuracy, memory."""
