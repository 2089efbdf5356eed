"""What a user writes: studies, their sections and spaces, trainings. All of it is checked without torch."""
