"""What compression may gain and lose, predicted in seconds: without fits, from little data."""
