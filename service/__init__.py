"""The service: HTTP only. A REST API under ``/api/v1`` and pages for people, over the store and the jobs of ``nas``."""
