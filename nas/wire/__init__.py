"""The types that HTTP carries, and how they are made from domain types. No torch, no ray."""
