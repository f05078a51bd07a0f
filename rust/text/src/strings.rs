//! The string arrays of a GGUF file: located in one pass over the bytes, read in place.
//!
//! A string is stored as a little-endian `u64` byte length followed by its bytes, without alignment or terminator (GGUF
//! specification, `gguf_string_t`); an array stores its strings consecutively.

use crate::Error;

/// Size in bytes of the length prefix of every string.
const PREFIX: usize = 8;
/// Number of bytes read at a time.
const WINDOW: u64 = 256 << 10;

/// The locations of the strings of one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// `count + 1` absolute positions: of the length prefix of every string, then of the first byte after the array.
    /// String `i` is `data[offsets[i] + 8 .. offsets[i + 1]]`.
    pub offsets: Vec<u64>,
    /// Position of the first byte after the array, which equals the last offset.
    pub end: u64,
}

impl Index {
    /// The strings in order, taken from the bytes that were indexed.
    ///
    /// # Errors
    /// An item is [`Error::File`] if it lies outside `data`, which means that `data` is not what was indexed.
    pub fn strings<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = Result<&'a [u8], Error>> + 'a {
        self.offsets.windows(2).map(|bounds| {
            data.get(bounds[0] as usize + PREFIX..bounds[1] as usize)
                .ok_or_else(|| Error::File("a string array changed while it was read".to_owned()))
        })
    }
}

/// Finds the `count` strings that begin at byte `start` of `data`.
///
/// # Errors
/// [`Error::File`] if the array does not fit into `data`: the count and every length are checked against the bytes that
/// are actually present before anything is allocated, so the index is never larger than the data.
pub fn index_strings(data: &[u8], start: u64, count: u64) -> Result<Index, Error> {
    let read = |at: u64, out: &mut [u8]| {
        out.copy_from_slice(&data[at as usize..at as usize + out.len()]);
        Ok(())
    };
    index_strings_of(data.len() as u64, start, count, &read)
}

/// Same as [`index_strings`], for `size` bytes that `read(position, out)` reads piece by piece.
///
/// # Errors
/// The errors of [`index_strings`], and those of `read`.
pub fn index_strings_of(size: u64, start: u64, count: u64, read: Read) -> Result<Index, Error> {
    if start > size {
        return Err(Error::File(format!("a string array begins at byte {start}, but there are only {size} bytes")));
    }
    if count > (size - start) / PREFIX as u64 {
        return Err(Error::File(format!(
            "a string array of {count} strings needs at least {PREFIX} bytes for each, but only {} bytes follow; \
             the file is cut short or damaged",
            size - start
        )));
    }
    let mut offsets = Vec::new();
    offsets.try_reserve_exact(count as usize + 1)?;
    let mut window = Window { size, read, at: 0, bytes: Vec::new() };
    let mut position = start;
    for number in 0..count {
        offsets.push(position);
        let length =
            u64::from_le_bytes(window.prefix(position).ok_or_else(|| cut_short(number, count, size - position))??);
        position += PREFIX as u64;
        if length > size - position {
            return Err(Error::File(format!(
                "string {number} of {count} claims {length} bytes, but only {} bytes follow; the file is cut short or \
                 damaged",
                size - position
            )));
        }
        position += length;
    }
    offsets.push(position);
    Ok(Index { offsets, end: position })
}

/// Reads bytes starting at a position.
pub type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<(), Error>;

/// Bytes that were read in one go, since strings are short.
struct Window<'a> {
    size: u64,
    read: Read<'a>,
    at: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The length prefix at `position`; `None` past the end.
    fn prefix(&mut self, position: u64) -> Option<Result<[u8; PREFIX], Error>> {
        if self.size - position < PREFIX as u64 {
            return None;
        }
        let inside = position.checked_sub(self.at).filter(|&from| from + PREFIX as u64 <= self.bytes.len() as u64);
        if inside.is_none()
            && let Err(error) = self.refill(position)
        {
            return Some(Err(error));
        }
        self.bytes.get((position - self.at) as usize..)?.first_chunk().copied().map(Ok)
    }

    fn refill(&mut self, position: u64) -> Result<(), Error> {
        let len = (self.size - position).min(WINDOW) as usize;
        self.at = position;
        self.bytes.clear();
        self.bytes.try_reserve_exact(len)?;
        self.bytes.resize(len, 0);
        (self.read)(position, &mut self.bytes)
    }
}

fn cut_short(number: u64, count: u64, left: u64) -> Error {
    Error::File(format!(
        "string {number} of {count} needs {PREFIX} bytes for its length, but only {left} bytes follow; the file is cut \
         short or damaged"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(strings: &[&[u8]]) -> Vec<u8> {
        strings.iter().flat_map(|text| [&(text.len() as u64).to_le_bytes()[..], text].concat()).collect()
    }

    #[test]
    fn finds_every_string_and_the_end() {
        let data = [b"xyz".to_vec(), array(&[b"", b"abc", b"\xff"]), b"after".to_vec()].concat();
        let index = index_strings(&data, 3, 3).unwrap();
        assert_eq!(index.offsets, [3, 11, 22, 31]);
        assert_eq!(index.end, 31);
        assert_eq!(&data[31..], b"after");
        let strings: Vec<&[u8]> = index.strings(&data).map(Result::unwrap).collect();
        assert_eq!(strings, [&b""[..], b"abc", b"\xff"]);
        assert!(index.strings(&data[..30]).last().unwrap().is_err());
    }

    #[test]
    fn an_empty_array_ends_where_it_begins() {
        assert_eq!(index_strings(b"abc", 3, 0).unwrap(), Index { offsets: vec![3], end: 3 });
    }

    #[test]
    fn every_truncation_is_an_error() {
        let data = array(&[b"one", b"", b"three"]);
        assert!(index_strings(&data, 0, 3).is_ok());
        for length in 0..data.len() {
            assert!(index_strings(&data[..length], 0, 3).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn hostile_numbers_are_errors() {
        let data = array(&[b"one", b"two"]);
        for (start, count) in [(0, u64::MAX), (0, 1 << 60), (u64::MAX, 0), (23, 0), (0, 3), (1, 2)] {
            assert!(index_strings(&data, start, count).is_err(), "start {start}, count {count}");
        }
        for length in [u64::MAX, 1 << 63, 15] {
            assert!(index_strings(&[&length.to_le_bytes()[..], &[0; 14]].concat(), 0, 1).is_err());
        }
    }
}
