"""The types of the HTTP API, and their builders from domain types. Loads neither torch nor ray."""
