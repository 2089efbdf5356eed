from tests.nas.store.databases import migrated_file, postgres, store, store_url

__all__ = ["migrated_file", "postgres", "store", "store_url"]
