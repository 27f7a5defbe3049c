//! The storage engine: restic repository format v2 over blob stores.
