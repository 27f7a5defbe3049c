//! Tells the demo: chapters, what is being waited for, how long it took, and a table at the end.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;

/// The demo as it is told on standard output.
#[derive(Debug)]
pub struct Story {
    begun: Instant,
    chapters: Vec<(String, Duration)>,
}

impl Default for Story {
    fn default() -> Self {
        Self { begun: Instant::now(), chapters: Vec::new() }
    }
}

impl Story {
    /// Runs one chapter and prints its title before and its time after.
    pub async fn chapter<T>(&mut self, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.chapters.len() + 1;
        say(&format!("\n━━ {number}. {title}"));
        let begun = Instant::now();
        let value = work.await?;
        let took = begun.elapsed();
        say(&format!("   ✓ {:.1} s", took.as_secs_f64()));
        self.chapters.push((title.to_owned(), took));
        Ok(value)
    }

    /// The table of all chapters.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.chapters.iter().map(|(title, _)| title.chars().count()).max().unwrap_or(0).max(5);
        let line = format!("  {}  {}\n", "─".repeat(width + 4), "─".repeat(9));
        let mut table = line.clone();
        for (index, (title, took)) in self.chapters.iter().enumerate() {
            let _ = writeln!(table, "  {:>2}. {title:width$}  {:>7.1} s", index + 1, took.as_secs_f64());
        }
        table.push_str(&line);
        let _ = writeln!(table, "      {:width$}  {:>7.1} s", "total", self.begun.elapsed().as_secs_f64());
        table
    }
}

/// Prints one line.
pub fn say(text: &str) {
    // A closed terminal is no reason to stop in the middle.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a text below the current chapter.
pub fn show(text: &str) {
    for line in text.trim_end().lines() {
        say(&format!("     {line}"));
    }
}
