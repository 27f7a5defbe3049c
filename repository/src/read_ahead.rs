//! Reads of small blobs, with what stands behind them: neighbours in a pack were neighbours in a directory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::id::Id;
use crate::index::Location;
use crate::store::{BlobStore, StoreError};

/// How much is read at once when a small blob is asked for.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Blobs from this size on are read alone.
const LARGE: u32 = 512 * 1024;
/// How many windows are kept: 16 MiB.
const WINDOWS: usize = 8;

/// The windows that were read last.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    store: Arc<dyn BlobStore>,
    windows: Mutex<VecDeque<Window>>,
}

#[derive(Debug)]
struct Window {
    pack: Id,
    start: u32,
    bytes: Bytes,
}

impl ReadAhead {
    pub(crate) fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store, windows: Mutex::default() }
    }

    /// The sealed bytes at a location.
    pub(crate) async fn read(&self, path: &str, location: &Location) -> Result<Bytes, StoreError> {
        let Location { pack, offset, length, pack_end, .. } = *location;
        if length >= LARGE {
            return self.store.read_range(path, offset.into(), length.into()).await;
        }
        if let Some(found) = self.find(location) {
            return Ok(found);
        }
        let span = WINDOW.min(pack_end.saturating_sub(offset)).max(length);
        let bytes = self.store.read_range(path, offset.into(), span.into()).await?;
        let wanted = bytes.slice(..(length as usize).min(bytes.len()));
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= WINDOWS {
            windows.pop_front();
        }
        windows.push_back(Window { pack, start: offset, bytes });
        Ok(wanted)
    }

    fn find(&self, location: &Location) -> Option<Bytes> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let at = windows.iter().position(|window| window.slice(location).is_some())?;
        // The one that was of use goes to the end that is dropped last.
        let window = windows.remove(at)?;
        let found = window.slice(location);
        windows.push_back(window);
        found
    }
}

impl Window {
    fn slice(&self, location: &Location) -> Option<Bytes> {
        let start = location.offset.checked_sub(self.start).filter(|_| self.pack == location.pack)? as usize;
        let end = start.checked_add(location.length as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}
