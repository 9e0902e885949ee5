//! PAX records: `<length> <key>=<value>\n`, where the length counts itself.

/// What extended headers say about the entry after them.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

impl Extended {
    pub(super) fn is_empty(&self) -> bool {
        self.path.is_none() && self.target.is_none() && self.size.is_none()
    }

    /// Reads records; `Err` says why they cannot be trusted.
    ///
    /// By their lengths and not by lines, since values may contain newlines, and a reader that takes them for records
    /// sees another archive.
    pub(super) fn read(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        const MALFORMED: &str = "has malformed PAX records";
        while !data.is_empty() {
            let space = data.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let len = decimal(&data[..space]).and_then(|len| usize::try_from(len).ok()).ok_or(MALFORMED)?;
            let record = data.get(space + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let twice = match key {
                b"path" => self.path.replace(value.to_vec()).is_some(),
                b"linkpath" => self.target.replace(value.to_vec()).is_some(),
                b"size" => self.size.replace(decimal(value).ok_or(MALFORMED)?).is_some(),
                _ if key.starts_with(b"GNU.sparse.") => return Err("describes a sparse file"),
                _ => false,
            };
            if twice {
                return Err("gives a second name or size to one entry");
            }
            data = &data[len..];
        }
        Ok(())
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    // `parse` alone would take a sign.
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Returns one record.
pub(super) fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for len in [1, 86, 87, 88, 89, 90, 985, 986, 987, 988, 4096] {
            let value = "x".repeat(len);
            let text = record("path", &value);
            assert_eq!(text.split(' ').next(), Some(text.len().to_string().as_str()), "{len}");
            let mut extended = Extended::default();
            assert_eq!(extended.read(text.as_bytes()), Ok(()));
            assert_eq!(extended.path, Some(value.into_bytes()));
        }
    }

    #[test]
    fn malformed_records_are_no_panic() {
        for text in [
            "x",
            "5",
            "5 ",
            " a=b\n",
            "0 a=b\n",
            "2 a=b\n",
            "3 a=b\n",
            "6 a=b",
            "7 a=b\n",
            "6 ab=\0",
            "4 a\n",
            "18446744073709551615 a=b\n",
        ] {
            assert_eq!(Extended::default().read(text.as_bytes()), Err("has malformed PAX records"), "{text:?}");
        }
        assert_eq!(Extended::default().read(b"6 a=b\n8 c=d\n\x20\n"), Ok(()));
    }
}
