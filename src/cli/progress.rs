//! How far long work has come, for a person who reads stderr.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output::harmless_line;

/// While the end is not known.
const COUNTING: &str = "{msg}  {decimal_bytes}  {decimal_bytes_per_sec}";
/// Once it is.
const TOWARDS: &str = "{msg}  [{bar:24}]  {decimal_bytes} / {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}";

/// Several things at once, one line each; nothing where nobody is reading.
#[derive(Debug)]
pub struct Board(Option<MultiProgress>);

impl Board {
    /// Returns a board that shows something only if `shown`.
    pub fn new(shown: bool) -> Self {
        Self(shown.then(MultiProgress::new))
    }

    /// Adds a line.
    pub fn add(&self, what: &str) -> Progress {
        let bar = self.0.as_ref().map(|board| {
            let bar = board.add(ProgressBar::no_length().with_message(harmless_line(what)));
            bar.set_style(style(COUNTING));
            bar
        });
        Progress(bar)
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("##-")
}

/// One line; goes from the screen when the work ends.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Shows a number of bytes.
    pub fn set(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
        }
    }

    /// Shows a number of bytes, and how many there will be where that is known.
    pub fn towards(&self, bytes: u64, total: Option<u64>) {
        let Some(bar) = &self.0 else { return };
        if total.is_some() && bar.length() != total {
            bar.set_length(total.unwrap_or_default());
            bar.set_style(style(TOWARDS));
        }
        bar.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
