//! Bounds on what is expanded, each with its reason. Flags raise them.

/// Bounds on one skill, when it is packed and when it is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sum of the sizes of all files, in bytes (`--max-size`).
    pub size: u64,
    /// Number of entries, directories included (`--max-files`).
    pub entries: u64,
    /// Depth of the directory tree (`--max-depth`).
    pub depth: usize,
    /// Largest ratio of unpacked to packed bytes, counted after [`RATIO_AFTER`] (`--max-ratio`).
    pub ratio: u64,
}

/// Longest path of an entry, in bytes: `PATH_MAX` of Linux, so a longer one could be packed but never opened.
pub const MAX_PATH: usize = 4096;

/// Unpacked bytes below which the ratio is not looked at: small texts of one repeated line compress far better than any
/// honest large skill, and 64 MiB harm no host.
pub const RATIO_AFTER: u64 = 64 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest public skills carry model weights or PDFs of some hundred megabytes.
            size: 4 << 30,
            // A vendored node_modules has about 50,000 entries; four times that still unpacks in seconds.
            entries: 200_000,
            // Deeper trees exhaust descriptors of tools that walk recursively.
            depth: 128,
            // DEFLATE reaches 1032:1 on zeros; text stays below 20:1.
            ratio: 200,
        }
    }
}
