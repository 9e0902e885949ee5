//! Bytes that are written once, one after the other, and read in any order: the first in memory, the others in a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;

/// Bytes that stay in memory: those of nearly every skill, for which a system call for each file would be most of the work.
const MEMORY: usize = 32 << 20;
/// Bytes that are written to the file at once.
const CHUNK: usize = 256 << 10;

/// What was written; [`Write::flush`] before it is read.
#[derive(Debug)]
pub(super) struct Spool {
    memory: Vec<u8>,
    limit: usize,
    file: BufWriter<File>,
    end: u64,
}

impl Spool {
    /// Returns an empty one with a file that is empty, too, and that nobody else has.
    pub(super) fn new(file: File) -> Self {
        Self { memory: Vec::new(), limit: MEMORY, file: BufWriter::with_capacity(CHUNK, file), end: 0 }
    }

    /// Returns the number of bytes, which is where the next one goes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Reads some of the bytes from `at` on; none where there are none.
    pub(super) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match usize::try_from(at).ok().and_then(|at| self.memory.get(at..)) {
            Some(mut rest) if !rest.is_empty() => io::Read::read(&mut rest, buffer),
            _ => self.file.get_ref().read_at(buffer, at.saturating_sub(self.memory.len() as u64)),
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.limit - self.memory.len() {
            0 => self.file.write(bytes)?,
            room => {
                let bytes = &bytes[..room.min(bytes.len())];
                self.memory.extend_from_slice(bytes);
                bytes.len()
            }
        };
        self.end += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_memory_has_no_room_for_is_in_the_file() {
        let mut spool = Spool { limit: 5, ..Spool::new(tempfile::tempfile().unwrap()) };
        for part in ["abc", "defg", "", "hi"] {
            spool.write_all(part.as_bytes()).unwrap();
        }
        spool.flush().unwrap();
        assert_eq!((spool.end(), spool.memory.as_slice()), (9, b"abcde".as_slice()));
        for (at, want) in [(0, "abcdefghi"), (3, "defghi"), (5, "fghi"), (8, "i"), (9, ""), (20, "")] {
            let (mut got, mut buffer) = (Vec::new(), [0; 4]);
            loop {
                let len = spool.read_at(&mut buffer, at + got.len() as u64).unwrap();
                got.extend_from_slice(&buffer[..len]);
                if len == 0 {
                    break;
                }
            }
            assert_eq!(String::from_utf8(got).unwrap(), want, "{at}");
        }
    }
}
