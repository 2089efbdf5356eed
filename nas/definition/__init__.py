"""What a user writes: studies, their sections and spaces, trainings; checked completely without torch."""
