"""Errors a user can cause: what was found, where, what was expected, what to do."""


class QAError(ValueError):
    """Something the user gave cannot be used.

    The four parts are the exception's `args`, so that it survives pickling between processes.

    >>> print(QAError("no such file", where="train.json", remedy="check the path"))
    train.json: no such file. Do: check the path
    """

    def __init__(self, found: str, where: str = "", expected: str = "", remedy: str = "") -> None:
        super().__init__(found, where, expected, remedy)

    def __str__(self) -> str:
        found, where, expected, remedy = self.args
        text = f"{where}: {found}" if where else str(found)
        text += f". Expected: {expected}" if expected else ""
        return text + (f". Do: {remedy}" if remedy else "")


def first_line(error: BaseException) -> str:
    """What a library's error says, its first line only."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class DataError(QAError):
    """A file or a record is not what its format promises."""


class ConfigError(QAError):
    """A setting is unknown, out of range, or contradicts another."""


class ModelError(QAError):
    """A model or its tokenizer cannot be used for extractive question answering."""


class StorageError(QAError):
    """A place to read from or write to cannot be reached."""


class ResourceError(QAError):
    """The cluster does not have what the configuration asks for."""
