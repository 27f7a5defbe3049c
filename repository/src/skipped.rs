//! What was left out, counted, with the first few named.

/// How many items are named.
const NAMED: usize = 10;
/// How long the name and the reason of one may be, so that a status can hold them.
const TEXT: usize = 512;

/// Items that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first ten.
    pub first: Vec<SkippedItem>,
}

/// One item that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedItem {
    /// Its path below the directory that was asked for.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl Skipped {
    pub(crate) fn add(&mut self, path: &std::path::Path, reason: &str) {
        tracing::warn!(path = %path.display(), reason, "left out");
        self.count += 1;
        if self.first.len() < NAMED {
            let cut = |text: &str| text.chars().take(TEXT).collect();
            self.first.push(SkippedItem { path: cut(&path.to_string_lossy()), reason: cut(reason) });
        }
    }
}
