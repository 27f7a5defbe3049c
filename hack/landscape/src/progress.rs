//! Tells a person what is going on: one line per slow step, with the time that it took.

use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::error::Result;

/// Steps shorter than this are not worth a line.
const WORTH_A_LINE: Duration = Duration::from_millis(150);

/// Where the progress of long operations goes.
pub trait Progress: Send + Sync {
    /// A step has ended well.
    fn done(&self, what: &str, took: Duration);
    /// Something to know that is not a step.
    fn note(&self, text: &str);
}

/// Progress on standard error, so that a program's own output stays clean.
#[derive(Debug, Default)]
pub struct Console;

impl Progress for Console {
    fn done(&self, what: &str, took: Duration) {
        // A closed terminal is no reason to stop.
        let _ = writeln!(std::io::stderr(), "✓ {what} ({:.1} s)", took.as_secs_f64());
    }

    fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "· {text}");
    }
}

/// No progress at all.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn done(&self, _what: &str, _took: Duration) {}
    fn note(&self, _text: &str) {}
}

/// Runs one step and reports it when it ends well; its error reports itself.
pub(crate) async fn step<T>(progress: &dyn Progress, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    let value = work.await?;
    let took = started.elapsed();
    if took >= WORTH_A_LINE {
        progress.done(what, took);
    }
    Ok(value)
}
