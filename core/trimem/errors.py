"""Everything trimem raises on purpose.

::

    TrimemError
    ├── InvalidInputError (ValueError)     an argument is outside what the call accepts
    │   ├── InvalidNamespaceError          a namespace is missing, empty or malformed
    │   ├── ContextLengthError             the text does not fit the model's context
    │   ├── SlotNotFoundError              a slot is not in the bank (any more)
    │   └── UnreadableFileError            a file holds no text that trimem can read
    │       └── FileTooLargeError          a file is larger than what is read at most
    ├── MissingDependencyError (ImportError)  an optional package or model is not installed
    ├── ModelError
    │   ├── UnsupportedModelError          the model cannot be lent memory
    │   ├── UnfinishedCallError            the model was made to call a tool, and was cut off
    │   ├── CalibrationNotFoundError       the model's heads have not been calibrated
    │   └── FingerprintMismatch            the bank was made by another model or encoder
    ├── PeerError                          a program that trimem is compared with has failed
    ├── RequestError                       a request to the server is refused
    │   ├── AuthenticationError            it has no valid key
    │   ├── RequestTooLargeError           it is larger than what is read
    │   └── ServerBusyError                too many wait for the model already
    └── StoreError
        ├── BankNotFoundError              there is no bank at that place
        ├── SchemaVersionError             the bank or export was written by a newer trimem
        ├── CorruptExportError             a file is no export, or not what was written
        ├── CorruptTensorError             tensors are not what was written
        ├── CorruptDatabaseError           the database is not what was written
        ├── DiskError                      the disk is full, read-only or failing
        └── BankBusyError                  another process kept the bank to itself

Each message says what was expected, what came, and what to do about it.
"""


class TrimemError(Exception):
    """Root of every error raised by trimem."""


class InvalidInputError(TrimemError, ValueError):
    """An argument is outside what the call accepts."""


class InvalidNamespaceError(InvalidInputError):
    """A namespace is missing, empty or malformed."""


class ContextLengthError(InvalidInputError):
    """Memory, prompt and answer together do not fit the model's context."""


class SlotNotFoundError(InvalidInputError):
    """A slot is not in the bank: it was forgotten or replaced since it was found."""


class UnreadableFileError(InvalidInputError):
    """A file holds no text that trimem can read."""


class FileTooLargeError(UnreadableFileError):
    """A file is larger than what is read at most."""


class MissingDependencyError(TrimemError, ImportError):
    """An optional package, or the weights it carries, is not installed."""


class ModelError(TrimemError):
    """Something about a language model or encoder does not fit."""


class UnsupportedModelError(ModelError):
    """The model cannot be lent memory."""


class UnfinishedCallError(ModelError):
    """A model was made to call a tool, and was cut off before the call was complete."""


class CalibrationNotFoundError(ModelError):
    """The model's heads have not been calibrated."""


class FingerprintMismatch(ModelError):  # noqa: N818 - the name users know it by
    """The bank was made by another model or encoder than the one given."""


class PeerError(TrimemError):
    """A program that trimem is compared with has failed."""


class RequestError(TrimemError):
    """A request to the server is refused."""


class AuthenticationError(RequestError):
    """A request has no valid key."""


class RequestTooLargeError(RequestError):
    """A request is larger than what is read."""


class ServerBusyError(RequestError):
    """Too many requests wait for the model already."""


class StoreError(TrimemError):
    """Something about what lies on the disk does not fit."""


class BankNotFoundError(StoreError):
    """There is no bank at the given place."""


class SchemaVersionError(StoreError):
    """The bank or export was written by a newer trimem."""


class CorruptExportError(StoreError):
    """A file is no export of a bank, or not what was written."""


class CorruptTensorError(StoreError):
    """Tensors are missing or not what was written."""


class CorruptDatabaseError(StoreError):
    """The database is not what was written."""


class DiskError(StoreError):
    """The disk is full, read-only or failing."""


class BankBusyError(StoreError):
    """Another process kept the bank to itself for longer than anyone should wait."""
