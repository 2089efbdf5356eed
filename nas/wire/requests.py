"""The JSON that clients send, and the answers to changes of studies. Loads neither torch nor ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from nas.wire.bodies import Body


class DescriptionBody(BaseModel):
    """Changes of what people say of a study; keys that are absent keep their values.

    Args:
        name: New name, which no other study has.
        tags: All tags of the study.
        note: Text about the study.
        archived: Whether the study is left out of the usual list.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    tags: list[str] | None = None
    note: str | None = None
    archived: bool | None = None


class DeletedBody(Body):
    """A deleted study.

    Args:
        id: Id that it had.
        name: Name that it had.
        files: Number of deleted files: checkpoints, weights, exports.
        size: Bytes of the deleted files.
    """

    id: str
    name: str
    files: int
    size: int
