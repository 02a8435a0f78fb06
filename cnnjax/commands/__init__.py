"""What each command does, behind its flags."""
