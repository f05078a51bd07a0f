//! The string arrays of a GGUF file: found by one pass over the bytes, read in place.
//!
//! A string is stored as a little-endian `u64` byte length followed by its bytes, without alignment or terminator
//! (GGUF specification, `gguf_string_t`); an array of strings is one after the other.

use crate::Error;

/// Bytes of the length in front of every string.
const PREFIX: usize = 8;

/// Where the strings of one array lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// `count + 1` absolute positions: of the length prefix of every string, then of the first byte after the array.
    /// String `i` is `data[offsets[i] + 8 .. offsets[i + 1]]`.
    pub offsets: Vec<u64>,
    /// Position of the first byte after the array, which equals the last offset.
    pub end: u64,
}

impl Index {
    /// The strings in order, out of the bytes that were indexed.
    ///
    /// # Errors
    /// An item is [`Error::File`] if it lies outside of `data`, which then is not what was indexed.
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
/// are really there before anything is allocated, so the index is never larger than the data.
pub fn index_strings(data: &[u8], start: u64, count: u64) -> Result<Index, Error> {
    let mut rest = usize::try_from(start).ok().and_then(|start| data.get(start..)).ok_or_else(|| {
        Error::File(format!("a string array begins at byte {start}, but there are only {} bytes", data.len()))
    })?;
    if count > (rest.len() / PREFIX) as u64 {
        return Err(Error::File(format!(
            "a string array of {count} strings needs at least {PREFIX} bytes for each, but only {} bytes follow; \
             the file is cut short or damaged",
            rest.len()
        )));
    }
    let mut offsets = Vec::new();
    offsets.try_reserve_exact(count as usize + 1).map_err(|_| {
        Error::File(format!("a string array of {count} strings needs more memory than there is for its index"))
    })?;
    for number in 0..count {
        offsets.push((data.len() - rest.len()) as u64);
        let (prefix, after) = rest.split_first_chunk::<PREFIX>().ok_or_else(|| cut_short(number, count, rest.len()))?;
        let length = u64::from_le_bytes(*prefix);
        rest = usize::try_from(length).ok().and_then(|length| after.get(length..)).ok_or_else(|| {
            Error::File(format!(
                "string {number} of {count} claims {length} bytes, but only {} bytes follow; the file is cut short or \
                 damaged",
                after.len()
            ))
        })?;
    }
    let end = (data.len() - rest.len()) as u64;
    offsets.push(end);
    Ok(Index { offsets, end })
}

fn cut_short(number: u64, count: u64, left: usize) -> Error {
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
